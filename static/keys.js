// Keyboard shortcuts. Each is also a button in the list of shortcuts.

import { closeForm, openForm } from './form.js';
import { $ } from './words.js';

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
    n: openForm,
    j: () => step(list, 1),
    k: () => step(list, -1),
    Enter: () => current(list)?.querySelector('summary')?.click(),
    Escape: () => back(),
    '?': () => (dialog.open ? dialog.close() : dialog.showModal()),
  };

  addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || dialog.open) return;
    const typing = event.target.closest('input, textarea, select');
    if (event.key === 'Escape') return act.Escape();
    // The browser itself handles Enter on a row.
    if (typing || !on.checked || event.key === 'Enter' || !Object.hasOwn(act, event.key)) return;
    event.preventDefault();
    act[event.key]();
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
  if (target) target.focus({ focusVisible: true });
  else step(list, by);
}

/** Closes what is open, else removes the focus from the row or field. */
function back() {
  const open = document.activeElement.closest?.('#rows details[open]') ?? document.querySelector('.state[open]');
  if (open) open.open = false;
  else if (document.activeElement.closest('#send')) closeForm();
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
