// The page of a user: adds up the counts of the search that continues and of the live events.

import { startFeed } from './feed.js';
import { duration, exactTime } from './time.js';
import { $, events, number, write } from './words.js';

// The server sends no more either; the rest is one number.
const MOST_ACTIONS = 100;
// A session ends with a pause as long as this.
const PAUSE = 1_800_000;

/** Counts of a part: events, events of each action, of all other actions, and the first and last time. */
class Counts {
  constructor({ events = 0, actions = [], other = 0, first_seen = null, last_seen = null } = {}) {
    this.events = events;
    this.actions = new Map(actions.map(({ action, events }) => [action, events]));
    this.other = other;
    this.first = first_seen;
    this.last = last_seen;
  }

  add({ events, actions, other, first, last }) {
    this.events += events;
    for (const [action, count] of actions) this.actions.set(action, (this.actions.get(action) ?? 0) + count);
    this.other += other;
    // ISO times of the same form sort like their text.
    if (first && !(this.first < first)) this.first = first;
    if (last && !(this.last > last)) this.last = last;
    return this;
  }
}

export function startUser(rows) {
  const table = $('counted');
  const lines = new Map([...table.tBodies[0].rows].map((row) => [row.dataset.action, row]));
  const counted = new Counts({
    events: Number($('events').dataset.events),
    actions: [...lines].map(([action, { dataset }]) => ({ action, events: Number(dataset.events) })),
    other: Number($('other').dataset.events),
    first_seen: $('first-seen').getAttribute('datetime'),
    last_seen: $('last-seen').getAttribute('datetime'),
  });
  // The counts of the running search; each progress message has its total so far.
  let running = new Counts();
  let drawing = false;

  const draw = () => {
    drawing = false;
    const sums = new Counts().add(counted).add(running);
    write($('events'), number(sums.events));
    time($('first-seen'), sums.first);
    time($('last-seen'), sums.last);
    const sorted = [...sums.actions].sort(([a, more], [b, less]) => less - more || (a < b ? -1 : 1));
    const shown = sorted.slice(0, MOST_ACTIONS);
    for (const [action, count] of shown) {
      if (!lines.has(action)) lines.set(action, line(table, action));
      const row = lines.get(action);
      write(row.cells[1], number(count));
      write(row.cells[2], percent(count, sums.events));
      row.querySelector('rect').setAttribute('width', Math.floor((count * 100) / shown[0][1]));
    }
    // Keep the rows in place while the user points at them.
    if (!table.matches(':hover, :focus-within'))
      arrange(
        table.tBodies[0],
        shown.map(([action]) => lines.get(action)),
      );
    const other = sums.other + sorted.slice(MOST_ACTIONS).reduce((sum, [, count]) => sum + count, 0);
    $('other').hidden = other === 0;
    write($('other').cells[1], number(other));
    table.hidden = sums.events === 0;
  };
  const drawSoon = () => {
    if (!drawing) requestAnimationFrame(draw);
    drawing = true;
  };

  for (const type of ['pointerleave', 'focusout']) table.addEventListener(type, drawSoon);

  startFeed(rows, {
    arrived(html) {
      counted.add(one(html));
      drawSoon();
    },
    // The server left these events out, so their actions are unknown.
    skipped(count) {
      counted.add(new Counts({ events: count, other: count }));
      drawSoon();
    },
    missed: () => ($('uncounted').hidden = false),
  });
  // Show the times in the browser's zone.
  draw();
  setInterval(() => {
    const last = Date.parse($('last-seen').dateTime);
    if (last) write($('last-ago'), `${duration(Date.now() - last)} ago`);
  }, 1000);
  between(rows);
  new MutationObserver(() => between(rows)).observe(rows, { childList: true });
  const box = $('search');
  if (box) countOn(box);

  async function countOn(box) {
    const { Search } = await import('./search.js');
    const address = new URL(box.dataset.search, location);
    let room = Number(address.searchParams.get('limit'));
    const search = new Search(box, rows, {
      row() {
        room -= 1;
        $('empty').hidden = true;
        $('older').hidden = false;
      },
      found: () => events(counted.events + running.events),
      progress({ counts }) {
        running = new Counts(counts);
        drawSoon();
      },
      ended(next) {
        counted.add(running);
        running = new Counts();
        drawSoon();
        $('on').hidden = !next;
        $('so-far').hidden = !next;
        $('looking').hidden = true;
        $('none').hidden = !!next;
        $('unknown').hidden = !next;
        if (next) address.searchParams.set('to', next);
        address.searchParams.set('limit', room);
      },
    });
    const start = () => {
      $('on').hidden = true;
      $('looking').hidden = false;
      $('unknown').hidden = true;
      search.start(address, address.searchParams.get('to'), true);
    };
    $('on').addEventListener('click', () => {
      start();
      $('stop').focus();
    });
    start();
  }
}

/** The counts of one event's row. */
function one(html) {
  const fragment = document.createElement('template');
  fragment.innerHTML = html;
  const action = fragment.content.querySelector('.what').textContent;
  const at = fragment.content.querySelector('time')?.dateTime ?? null;
  const actions = action ? [{ action, events: 1 }] : [];
  return new Counts({ events: 1, actions, other: action ? 0 : 1, first_seen: at, last_seen: at });
}

/** Writes the time since the event before into rows that have none, and a line for each pause. */
function between(list) {
  for (const row of list.querySelectorAll(':scope > .event:not(:has(.since))')) {
    const next = row.nextElementSibling;
    const [own, before] = [row, next].map((one) => Date.parse(one?.querySelector('time')?.dateTime));
    // Of the oldest row nothing is known until an older one comes.
    if (!next?.matches('.event') || Number.isNaN(own - before)) continue;
    const passed = own - before;
    const since = document.createElement('span');
    since.className = 'since';
    since.textContent = passed < 0 ? '' : `+${short(passed)}`;
    row.querySelector('time').after(since);
    if (passed < PAUSE) continue;
    const pause = document.createElement('li');
    pause.className = 'pause';
    pause.textContent = `${short(passed)} pause`;
    row.after(pause);
  }
}

/** A time as the server writes it: `9 ms`, `1.1 s`, `19 s`, `41 min`. */
function short(ms) {
  if (ms < 1000) return `${ms} ms`;
  if (ms < 60_000 && ms % 1000 >= 100) return `${Math.floor(ms / 100) / 10} s`;
  return ms < 120_000 ? `${Math.floor(ms / 1000)} s` : ms < 7_200_000 ? `${Math.floor(ms / 60_000)} min` : duration(ms);
}

const percent = (part, whole) => (part > 0 && part * 100 < whole ? '< 1 %' : `${Math.floor((part * 100) / whole)} %`);

/** Adds a table row for a new action. */
function line(table, action) {
  const row = $('action').content.firstElementChild.cloneNode(true);
  row.dataset.action = action;
  row.querySelector('bdi').textContent = action;
  row.querySelector('a').href += encodeURIComponent(action);
  table.tBodies[0].append(row);
  return row;
}

/** Sorts the rows and removes the others; rows in place are not moved. */
function arrange(body, rows) {
  rows.forEach((row, index) => {
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null);
  });
  while (body.rows.length > rows.length) body.lastElementChild.remove();
}

function time(element, iso) {
  if (!iso) return;
  let place = element;
  if (place.localName !== 'time') {
    // There was no time so far.
    place = document.createElement('time');
    place.id = element.id;
    element.replaceWith(place);
  }
  place.dateTime = iso;
  write(place, exactTime(new Date(iso)));
}
