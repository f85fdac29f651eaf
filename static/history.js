// Continues a search that the page itself did not complete: shows matches as they are found, and can be stopped.

import { Search } from './search.js';
import { $, at, events, number } from './words.js';

export function startSearch(box, rows) {
  const more = $('next').querySelector('a');
  const query = new URLSearchParams(box.dataset.search.split('?')[1]);
  const limit = new URL(more.href).searchParams.get('limit');
  const bound = query.get('order') === 'newest' ? 'to' : 'from';
  let found = Number(box.dataset.found);

  const remember = (next) => {
    query.set(bound, next);
    query.set('limit', limit - found);
    const address = new URL(more.href);
    address.searchParams.set(bound, next);
    more.href = address.pathname + address.search;
  };
  const search = new Search(box, rows, {
    found: () => `${number(found)} found`,
    row() {
      found += 1;
      rows.previousElementSibling.hidden = false;
    },
    ended(next) {
      $('next').hidden = !next;
      if (next) {
        remember(next);
        more.textContent = found >= limit ? (bound === 'to' ? 'Older events' : 'Next events') : 'Continue search';
      } else {
        $('empty').hidden = found > 0;
      }
      $('summary').textContent = events(found);
    },
  });
  const start = () => {
    $('next').hidden = true;
    search.start(at(`/history/search?${query}`), query.get(bound), bound === 'to');
  };
  more.addEventListener('click', (event) => {
    if (found >= limit || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    start();
    $('stop').focus();
  });
  start();
}
