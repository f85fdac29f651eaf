// The history page: its histogram, the days between its rows, and the search that the page itself did not complete, which
// shows matches as they are found and can be stopped.

import { Histogram } from './histogram.js';
import { Search } from './search.js';
import { copiedTime, dayOf, inputTime, isFirst } from './time.js';
import { $, at, events, number } from './words.js';

export function startHistory(rows) {
  const histogram = new Histogram($('histogram'));
  showDays(rows);
  if (isFirst) useZone($('filters'));
  // Browsers paste nothing else than what was copied from such an input.
  $('filters').addEventListener('paste', (event) => {
    const time = event.target.type === 'datetime-local' && copiedTime(event.clipboardData.getData('text'));
    if (!time) return;
    event.target.value = time;
    event.preventDefault();
  });
  if ($('search')) startSearch($('search'), rows, histogram);
}

/** Shows the times of inputs in the zone of the rows. */
function useZone(form) {
  const inputs = [...form.querySelectorAll('[type=datetime-local]')];
  for (const input of inputs) {
    // The default, so that a reset of the form keeps it.
    if (input.value) input.defaultValue = inputTime(new Date(`${input.value}Z`));
  }
  const shown = inputs.map(({ value }) => value.replace('T', ' '));
  if (inputs.length === 2 && (shown[0] || shown[1])) {
    const range = shown[0] ? `${shown[0]} – ${shown[1] || 'now'}` : `until ${shown[1]}`;
    form.querySelector('#range summary').textContent = range;
  }
}

/** Writes the day between rows of different days. */
function showDays(rows) {
  for (const line of rows.querySelectorAll('.day')) line.remove();
  let before = null;
  for (const row of rows.querySelectorAll(':scope > .event')) {
    const { date } = row.querySelector('time') ?? {};
    if (!date) continue;
    const day = dayOf(date);
    if (before !== null && day !== before) {
      const line = document.createElement('li');
      line.className = 'day';
      line.textContent = day;
      row.before(line);
    }
    before = day;
  }
}

function startSearch(box, rows, histogram) {
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
      $('summary').textContent = `${number(found)} found so far`;
    },
    progress({ reached, times = [] }) {
      histogram.found(times);
      if (reached) histogram.searched(Date.parse(reached));
    },
    ended(next) {
      showDays(rows);
      $('next').hidden = !next;
      if (next) {
        remember(next);
        more.textContent = found >= limit ? (bound === 'to' ? 'Older events' : 'Next events') : 'Continue search';
      } else {
        histogram.searchedAll();
        $('empty').hidden = found > 0;
      }
      $('summary').textContent = next ? `${number(found)} found so far` : events(found);
      $('exported').textContent = `${next ? '≥ ' : ''}${number(found)}`;
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
