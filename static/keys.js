// Keyboard shortcuts. Each is also a button in the list of shortcuts.

import { copy } from './copy.js';
import { $, at, isWide } from './words.js';

const STORED = 'footfall-keys';

export function startKeys(list) {
  const dialog = $('keys');
  const on = $('keys-on');
  on.checked = stored() !== 'off';
  on.addEventListener('change', () => store(on.checked ? 'on' : 'off'));

  const act = {
    '/': () => {
      $('unfold').checked = true;
      $('filters').elements.q.focus();
    },
    p: () => $('pause').click(),
    n: () => $('to-form').click(),
    j: () => step(list, 1),
    k: () => step(list, -1),
    Enter: () => current(list)?.querySelector('summary')?.click(),
    Escape: () => back(),
    ']': () => hide(list),
    ' ': () => mark(list),
    c: () => compare(list),
    y: () => copyRecord(list),
    l: () => copyLink(list),
    '?': () => (dialog.open ? dialog.close() : dialog.showModal()),
  };
  if (list) rove(list);
  // Keys for what this page does not have.
  if (!$('filters')) drop('/');
  if (!$('pause')) drop('p');
  if (!$('send')) drop('n');
  if (!list) 'j k Enter'.split(' ').forEach(drop);
  if (!list) [' ', 'c', ']'].forEach(drop);
  if (!list && !$('json')) ['y', 'l'].forEach(drop);

  function drop(key) {
    delete act[key];
    dialog.querySelector(`[data-key="${key}"]`).closest('li').hidden = true;
  }

  addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || dialog.open) return;
    const typing = event.target.closest('input, textarea, select');
    if (event.key === 'Escape') return act.Escape();
    // The browser itself handles Enter on a row, and Space where there is none.
    const isSpace = event.key === ' ';
    if (typing || !on.checked || event.key === 'Enter' || !Object.hasOwn(act, event.key)) return;
    if (isSpace && !event.target.closest('#rows > li > details > summary')) return;
    event.preventDefault();
    act[event.key]();
  });
  // Space would open the row when it is released.
  addEventListener('keyup', (event) => {
    if (event.key === ' ' && on.checked && event.target.closest('#rows > li > details > summary'))
      event.preventDefault();
  });
  $('keys-button').addEventListener('click', act['?']);
  dialog.addEventListener('click', (event) => {
    const key = event.target.closest('[data-key]')?.dataset.key;
    if (!key) return;
    dialog.close();
    if (key !== '?') act[key]();
  });
}

let last = null;

const ARROWS = { ArrowDown: 1, ArrowUp: -1 };
const SUMMARY = '#rows > li > details > summary';

/** Makes the list one stop of the Tab key, at the row that had the focus last. The arrow keys move within it. */
function rove(list) {
  let stop = null;
  const stopAt = (summary) => {
    if (stop) stop.tabIndex = -1;
    stop = summary;
    if (stop) stop.tabIndex = 0;
  };
  const tidy = () => {
    for (const summary of list.querySelectorAll(`${SUMMARY}:not([tabindex])`)) summary.tabIndex = -1;
    if (!stop?.isConnected) stopAt(list.querySelector(SUMMARY));
  };
  new MutationObserver(tidy).observe(list, { childList: true });
  tidy();
  list.addEventListener('focusin', ({ target }) => target.matches(SUMMARY) && stopAt(target));
  list.addEventListener('keydown', (event) => {
    const by = ARROWS[event.key];
    if (!by || !event.target.matches(SUMMARY) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    step(list, by);
  });
}

/** The row that has the focus, or had it last. */
function current(list) {
  const row = document.activeElement.closest?.('#rows > li') ?? last;
  return row?.isConnected ? row : list.firstElementChild;
}

function step(list, by) {
  const from = document.activeElement.closest?.('#rows > li') ?? (last?.isConnected ? last : null);
  const next = !from ? list.firstElementChild : by > 0 ? from.nextElementSibling : from.previousElementSibling;
  if (!next) return;
  last = next;
  const target = next.querySelector('summary, a');
  if (!target) return step(list, by);
  // Beside the list, the opened record follows.
  if (isWide() && list.querySelector(':scope > li > details[open]')) next.querySelector('details').open = true;
  target.focus({ focusVisible: true });
}

const place = (row) => row.id.slice(2);
const marked = (list) => [...list.querySelectorAll('.marked')];

/** Marks the row with the focus, or removes its mark. */
function mark(list) {
  const row = current(list);
  if (!row?.id) return;
  row.classList.toggle('marked');
  const count = marked(list).length;
  say(`${count} marked${count === 2 ? '. Press c to compare' : ''}`);
}

/** Compares two marked rows, the older one first. */
function compare(list) {
  const rows = marked(list);
  if (rows.length !== 2) return say('Mark two rows with Space to compare them');
  const [b, a] = rows.map(place);
  location.assign(at(`/compare?${new URLSearchParams({ a, b })}`));
}

/** The path of the record: of the row, or of this page. */
function path(list) {
  if (!list) return location.pathname;
  const row = current(list);
  return row?.id ? at(`/events/${place(row).replace('-', '/')}`) : null;
}

async function copyRecord(list) {
  const from = path(list);
  if (!from) return;
  try {
    const answer = await fetch(at(`/api/v1${from.slice(at('').length)}`), { signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error();
    say((await copy((await answer.text()).trim())) ? 'Record copied' : 'Not copied');
  } catch {
    say('The record could not be loaded');
  }
}

async function copyLink(list) {
  const to = path(list);
  if (to) say((await copy(location.origin + to)) ? 'Link copied' : 'Not copied');
}

let saying = 0;

/** Says for a moment what a key did. */
function say(words) {
  $('keys-said').textContent = words;
  clearTimeout(saying);
  saying = setTimeout(() => ($('keys-said').textContent = ''), 3000);
}

/** Closes the open rows: a wide window shows one of them beside the list. */
function hide(list) {
  for (const open of list.querySelectorAll(':scope > li > details[open]')) open.open = false;
}

/** Closes what is open, else removes the focus from the row or field. */
function back() {
  const open = document.activeElement.closest?.('#rows > li > details[open]') ?? document.querySelector('.state[open]');
  if (open) open.open = false;
  else if (document.activeElement.closest('#send')) $('send').querySelector('.close').click();
  else document.activeElement.blur();
}

function stored() {
  try {
    return localStorage.getItem(STORED);
  } catch {
    return null; // storage is disabled
  }
}

function store(value) {
  try {
    localStorage.setItem(STORED, value);
  } catch {
    // Storage is disabled: the choice lasts as long as the page.
  }
}
