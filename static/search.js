// A search on the server that goes on behind the page: its bar, its words, and the button that stops it.

import { duration, localTimes } from './time.js';

const $ = (id) => document.getElementById(id);
const number = (n) => n.toLocaleString('en');

export class Search {
  #source = null;
  #waiting = [];

  /**
   * Appends what it finds to a list. `on.row()` for each of those, `on.told(message)` with each sign of how far it got,
   * `on.found()` for what was found in words, and `on.ended(next)` with the place where it would go on, null where there is
   * no more.
   */
  constructor(box, list, on) {
    this.list = list;
    this.total = Number(box.dataset.total);
    this.of = box.dataset.of ?? '';
    this.on = on;
  }

  /** Goes on at an address, which stands for a place. */
  begin(address, place, backwards) {
    const before = Number($('search-bar').value);
    const progress = (event) => {
      const told = JSON.parse(event.data);
      const all = Math.min(before + told.scanned, this.total);
      $('search-bar').value = all;
      this.on.told?.(told);
      return [told, `Looked at ${number(all)} of ${number(this.total)} records${this.of}`];
    };
    $('stop').hidden = false;
    const source = new EventSource(address);
    this.#source = source;
    source.onmessage = (event) => {
      this.on.row();
      this.#waiting.push(event.data);
      if (this.#waiting.length === 1) requestAnimationFrame(() => this.#put());
    };
    source.addEventListener('progress', (event) => {
      const [told, looked] = progress(event);
      place = told.next;
      const where = told.reached ? `, ${backwards ? 'back to' : 'up to'} ${duration(Math.abs(Date.now() - new Date(told.reached)))} ago` : '';
      $('search-words').textContent = `${looked}${where}; ${this.on.found()} so far. ${number(told.rate)} records/s.`;
    });
    source.addEventListener('done', (event) => {
      const [told, looked] = progress(event);
      this.#end(`${looked}; ${this.on.found()}.`, told.next);
    });
    source.addEventListener('failed', (event) => this.#end(`The search broke off: ${JSON.parse(event.data).detail}.`, place));
    // It would begin anew from where it began.
    source.onerror = () => source === this.#source && this.#end('The search broke off: the connection was lost or refused.', place);
    $('stop').onclick = () => this.#end(`Stopped. ${this.on.found()}.`, place);
  }

  #end(words, next) {
    this.#source.close();
    this.#source = null;
    this.#put();
    $('search-words').textContent = words;
    $('stop').hidden = true;
    $('said').textContent = words;
    if (!next) $('search-bar').hidden = true;
    this.on.ended(next);
  }

  #put() {
    if (!this.#waiting.length) return;
    const fragment = document.createElement('template');
    fragment.innerHTML = this.#waiting.join('');
    this.#waiting = [];
    const fresh = [...fragment.content.children];
    localTimes(fresh, this.list);
    this.list.append(...fresh);
  }
}
