// Follows a search on the server: its progress bar, its summary, and the Stop button.

import { duration, localTimes } from './time.js';
import { $, number } from './words.js';

export class Search {
  #source = null;
  #waiting = [];

  /**
   * Appends matches to a list. Calls `on.row()` for each match, `on.progress(message)` for each progress message,
   * `on.found()` for the number of matches in words, and `on.ended(next)` with the cursor to continue at, null at the end.
   */
  constructor(box, list, on) {
    this.list = list;
    this.total = Number(box.dataset.total);
    this.of = box.dataset.of ?? '';
    this.verb = box.dataset.verb ?? 'Searched';
    this.on = on;
  }

  /** Starts the search at an address; `place` is its cursor, to continue at if the search ends early. */
  start(address, place, backwards) {
    const before = Number($('search-bar').value);
    const progress = (event) => {
      const message = JSON.parse(event.data);
      const all = before + message.scanned;
      // The rest is counted in offsets, and not every offset has a record.
      this.total = before + message.total;
      $('search-bar').max = this.total;
      $('search-bar').value = all;
      this.on.progress?.(message);
      const scanned = all === this.total ? `all ${number(all)}` : `${number(all)} of ${number(this.total)}`;
      return [message, `${this.verb} ${scanned} records${this.of}`];
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
      const [message, scanned] = progress(event);
      place = message.next;
      const where = message.reached
        ? `, ${backwards ? 'back to' : 'up to'} ${duration(Math.abs(Date.now() - new Date(message.reached)))} ago`
        : '';
      $('search-words').textContent =
        `${scanned}${where}; ${this.on.found()} so far. ${number(message.rate)} records/s.`;
    });
    source.addEventListener('done', (event) => {
      const [message, scanned] = progress(event);
      this.#end(`${scanned}; ${this.on.found()}.`, message.next);
    });
    source.addEventListener('failed', (event) =>
      this.#end(`Stopped by an error: ${JSON.parse(event.data).detail}.`, place),
    );
    // Without this, EventSource would reconnect and search again from the start.
    source.onerror = () => source === this.#source && this.#end('Stopped: the connection was lost or refused.', place);
    $('stop').onclick = () => this.#end(`Stopped; ${this.on.found()}.`, place);
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
