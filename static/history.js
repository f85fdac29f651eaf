// A search that the first look did not end: goes on by itself, shows what it finds as it is found, and can be stopped.

import { Search } from './search.js';

const $ = (id) => document.getElementById(id);
const number = (n) => n.toLocaleString('en');

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
        more.textContent = found >= limit ? (bound === 'to' ? 'Older events' : 'Next events') : 'Search on';
      } else {
        $('empty').hidden = found > 0;
      }
      $('summary').textContent = found === 1 ? '1 event' : `${number(found)} events`;
    },
  });
  const begin = () => {
    $('next').hidden = true;
    search.begin(`/history/search?${query}`, query.get(bound), bound === 'to');
  };
  more.addEventListener('click', (event) => {
    if (found >= limit || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    begin();
    $('stop').focus();
  });
  begin();
}
