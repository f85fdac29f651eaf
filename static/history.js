// A search that the first look did not end: goes on by itself, shows what it finds as it is found, and can be stopped.

import { duration, localTimes } from './time.js';

const $ = (id) => document.getElementById(id);
const number = (n) => n.toLocaleString('en');

export function startSearch(box, rows) {
  const looked = Number(box.dataset.scanned);
  const total = Number(box.dataset.total);
  const already = Number(box.dataset.found);
  const more = $('next').querySelector('a');
  const query = new URLSearchParams(box.dataset.search.split('?')[1]);
  const limit = new URL(more.href).searchParams.get('limit');
  const bound = query.get('order') === 'newest' ? 'to' : 'from';
  let waiting = [];
  let found = already;
  let source = null;

  const put = () => {
    if (!waiting.length) return;
    const fragment = document.createElement('template');
    fragment.innerHTML = waiting.join('');
    waiting = [];
    const fresh = [...fragment.content.children];
    localTimes(fresh, rows);
    rows.append(...fresh);
    rows.previousElementSibling.hidden = false;
  };
  const remember = (next) => {
    query.set(bound, next);
    query.set('limit', limit - found);
    const address = new URL(more.href);
    address.searchParams.set(bound, next);
    more.href = address.pathname + address.search;
  };
  const end = (words, next) => {
    source.close();
    source = null;
    put();
    $('search-words').textContent = words;
    $('stop').hidden = true;
    $('said').textContent = words;
    $('next').hidden = !next;
    if (next) {
      remember(next);
      more.textContent = found >= limit ? (bound === 'to' ? 'Older events' : 'Next events') : 'Search on';
    } else {
      $('search-bar').hidden = true;
      $('empty').hidden = found > 0;
    }
    $('summary').textContent = found === 1 ? '1 event' : `${number(found)} events`;
  };
  const begin = () => {
    const before = Number($('search-bar').value) - looked;
    const progress = ({ scanned, rate, reached }) => {
      const all = looked + before + scanned;
      $('search-bar').value = all;
      const where = reached ? `, ${bound === 'to' ? 'back to' : 'up to'} ${duration(Math.abs(Date.now() - new Date(reached)))} ago` : '';
      $('search-words').textContent = `Looked at ${number(Math.min(all, total))} of ${number(total)} records${where}; ${number(found)} found so far. ${number(rate)} records/s.`;
    };
    let place = query.get(bound);
    $('next').hidden = true;
    $('stop').hidden = false;
    source = new EventSource(`/history/search?${query}`);
    source.onmessage = (event) => {
      waiting.push(event.data);
      found += 1;
      if (waiting.length === 1) requestAnimationFrame(put);
    };
    source.addEventListener('progress', (event) => {
      const told = JSON.parse(event.data);
      place = told.next;
      progress(told);
    });
    source.addEventListener('done', (event) => {
      const told = JSON.parse(event.data);
      progress(told);
      const whole = `Looked at ${number(Math.min(looked + before + told.scanned, total))} of ${number(total)} records; ${number(found)} found.`;
      end(whole, told.next);
    });
    source.addEventListener('failed', (event) => end(`The search broke off: ${JSON.parse(event.data).detail}.`, place));
    // It would begin anew from where it began.
    source.onerror = () => source && end('The search broke off: the connection was lost or refused.', place);
    $('stop').onclick = () => end(`Stopped. ${number(found)} found.`, place);
  };
  more.addEventListener('click', (event) => {
    if (found >= limit || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    begin();
    $('stop').focus();
  });
  begin();
}
