// One user: the count that goes on behind the page, and the events that come live, in the same sums.

import { startFeed } from './feed.js';
import { Search } from './search.js';
import { exactTime } from './time.js';

// The server tells no more either; the rest is one sum.
const MOST_ACTIONS = 100;

const $ = (id) => document.getElementById(id);
const number = (n) => n.toLocaleString('en');

/** What was counted somewhere: events, those of each action, the others, and the times of the first and the last. */
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
    // Times of the same form: their order is that of their text.
    if (first && !(this.first < first)) this.first = first;
    if (last && !(this.last > last)) this.last = last;
    return this;
  }
}

export function startPerson(rows) {
  const table = $('counted');
  const lines = new Map([...table.tBodies[0].rows].map((row) => [row.dataset.action, row]));
  const counted = new Counts({
    events: Number($('events').dataset.events),
    actions: [...lines].map(([action, { dataset }]) => ({ action, events: Number(dataset.events) })),
    other: Number($('other').dataset.events),
    first_seen: $('first-seen').getAttribute('datetime'),
    last_seen: $('last-seen').getAttribute('datetime'),
  });
  // What the search that is under way has told: it tells all that it counted each time.
  let told = new Counts();
  let drawing = false;

  const draw = () => {
    drawing = false;
    const sums = new Counts().add(counted).add(told);
    write($('events'), number(sums.events));
    time($('first-seen'), sums.first);
    time($('last-seen'), sums.last);
    const sorted = [...sums.actions].sort(([a, more], [b, less]) => less - more || (a < b ? -1 : 1));
    const shown = sorted.slice(0, MOST_ACTIONS);
    for (const [action, count] of shown) {
      if (!lines.has(action)) lines.set(action, line(table, action));
      const row = lines.get(action);
      write(row.cells[1], number(count));
      row.querySelector('rect').setAttribute('width', Math.floor((count * 100) / shown[0][1]));
    }
    // No row goes away under a hand.
    if (!table.matches(':hover, :focus-within')) arrange(table.tBodies[0], shown.map(([action]) => lines.get(action)));
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
    // Too many to be told each: which actions they were is not known.
    skipped(count) {
      counted.add(new Counts({ events: count, other: count }));
      drawSoon();
    },
    missed: () => ($('uncounted').hidden = false),
  });
  // The times, in the reader's zone.
  draw();
  const box = $('search');
  if (box) countOn(box);

  function countOn(box) {
    const address = new URL(box.dataset.search, location);
    let room = Number(address.searchParams.get('limit'));
    const search = new Search(box, rows, {
      row() {
        room -= 1;
        $('empty').hidden = true;
        $('older').hidden = false;
      },
      found: () => events(counted.events + told.events),
      told({ counts }) {
        told = new Counts(counts);
        drawSoon();
      },
      ended(next) {
        counted.add(told);
        told = new Counts();
        drawSoon();
        $('on').hidden = !next;
        $('so-far').hidden = !next;
        if (next) address.searchParams.set('to', next);
        address.searchParams.set('limit', room);
      },
    });
    const begin = () => {
      $('on').hidden = true;
      search.begin(address, address.searchParams.get('to'), true);
    };
    $('on').addEventListener('click', () => {
      begin();
      $('stop').focus();
    });
    begin();
  }
}

const events = (n) => (n === 1 ? '1 event' : `${number(n)} events`);

/** The counts of one row. */
function one(html) {
  const fragment = document.createElement('template');
  fragment.innerHTML = html;
  const action = fragment.content.querySelector('.what').textContent;
  const at = fragment.content.querySelector('time')?.dateTime ?? null;
  const actions = action ? [{ action, events: 1 }] : [];
  return new Counts({ events: 1, actions, other: action ? 0 : 1, first_seen: at, last_seen: at });
}

/** A line of the table for an action that had none. */
function line(table, action) {
  const row = $('action').content.firstElementChild.cloneNode(true);
  row.dataset.action = action;
  row.querySelector('bdi').textContent = action;
  row.querySelector('a').href += `&${new URLSearchParams({ action })}`;
  table.tBodies[0].append(row);
  return row;
}

/** Puts the rows in their order and takes out the others, moving none that is in its place. */
function arrange(body, rows) {
  rows.forEach((row, index) => body.rows[index] !== row && body.insertBefore(row, body.rows[index] ?? null));
  while (body.rows.length > rows.length) body.lastElementChild.remove();
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function time(element, iso) {
  if (!iso) return;
  element.dateTime = iso;
  write(element, exactTime(new Date(iso)));
}
