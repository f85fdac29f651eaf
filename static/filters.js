// The filters and columns of a page: as its address has them, and as its form does.

import { at } from './words.js';

const FILTERS = [
  'user',
  'action',
  'user_prefix',
  'action_prefix',
  'not_user',
  'not_action',
  'q',
  'case',
  'f',
  'partition',
  'col',
];
// Parameters that end with the next filter.
const PASSING = ['sent', 'as', 'from', 'to', 'field', 'op', 'value'];

/** The filters and columns in a query string, without its other parameters. */
export function filtersOf(query) {
  return withoutIdle([...new URLSearchParams(query)].filter(([name, value]) => isFilter(name) && value));
}

export const isFilter = (name) => FILTERS.includes(name);

/** Whether filters leave anything out. */
export const isNarrowed = (filters) => [...filters.keys()].some((name) => name !== 'col');

/** What a form says. The inputs in `exact` hold a name, and not the beginning of one. */
export function typed(form, exact = []) {
  const found = [];
  for (const input of form.elements) {
    const { name, value } = input;
    const idle = !name || !value.trim() || (input.type === 'checkbox' && !input.checked) || input.closest('.by-field');
    if (!idle) found.push([exact.includes(input) ? name.replace('_prefix', '') : name, value]);
  }
  const condition = typedCondition(form.elements);
  if (condition) found.push(['f', condition]);
  return withoutIdle(found);
}

/** Sends a form of filters as an address without empty parameters. A text that is a suggestion is a whole name. */
export function startFilters(form) {
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    location.assign(`${form.getAttribute('action')}?${typed(form, suggested(form))}`);
  });
}

/** The inputs of a form whose text is one of their suggestions. */
export const suggested = (form) => [...form.elements].filter(isSuggested);

export const isSuggested = (input) => [...(input.list?.options ?? [])].some((option) => option.value === input.value);

/** The page on which a list's filters apply, and its query as far as it stays when they change. */
export function pageOf(list) {
  // The page of a user has no filters.
  const history = list.dataset.filters;
  const query = new URLSearchParams(history ?? location.search);
  for (const [name, value] of [...query]) if (!value || PASSING.includes(name)) query.delete(name);
  return [history === undefined ? location.pathname : at('/history'), query];
}

/** The queries with only one user or action, and without it. */
export function named(query, name, value) {
  const [only, without] = [new URLSearchParams(query), new URLSearchParams(query)];
  for (const filter of [name, `${name}_prefix`, `not_${name}`]) only.delete(filter);
  only.append(name, value);
  remove(without, name, value);
  remove(without, `not_${name}`, value);
  without.append(`not_${name}`, value);
  return [only, without];
}

/** The queries with only one value of a field, and without it. `condition` is `POINTER:eq:VALUE`. */
export function valued(query, condition) {
  const [pointer, value] = split(condition);
  const both = ['eq', 'ne'].map((operator) => `${pointer}:${operator}:${value}`);
  return both.map((added) => {
    const changed = new URLSearchParams(query);
    for (const one of both) remove(changed, 'f', one);
    changed.append('f', added);
    return changed;
  });
}

/** The query with a column for the field of a condition. */
export function columned(query, condition) {
  const changed = new URLSearchParams(query);
  const [pointer] = split(condition);
  remove(changed, 'col', pointer);
  changed.append('col', pointer);
  return changed;
}

/** The pointer to a member of the event, as `f` and `col` have it. */
export function pointerTo(name) {
  const escaped = { '~': '~0', '/': '~1', '%': '%25', ':': '%3A' };
  return `/${name.replace(/[~/%:]/g, (c) => escaped[c])}`;
}

function typedCondition({ field, op, value }) {
  const name = field.value.trim();
  if (!name) return null;
  const pointer = name.startsWith('/') ? name : pointerTo(name);
  if (op.value === 'missing') return `${pointer}:exists:false`;
  if (op.value === 'exists' || (op.value === 'eq' && !value.value)) return `${pointer}:exists`;
  return `${pointer}:${op.value}:${value.value}`;
}

/** Pointer and value of a condition. A pointer has no colon. */
function split(condition) {
  const [, pointer, value] = condition.match(/^([^:]*)(?::eq:([\s\S]*))?$/);
  return [pointer, value];
}

function remove(query, name, value) {
  const others = query.getAll(name).filter((other) => other !== value);
  query.delete(name);
  for (const other of others) query.append(name, other);
}

/** Filters without a choice of case if there is no text whose case matters. */
function withoutIdle(filters) {
  const matters = ([name, value]) => name === 'q' || (name === 'f' && /^[^:]*:(contains|prefix):/.test(value));
  const text = filters.some(matters);
  return new URLSearchParams(filters.filter(([name]) => name !== 'case' || text));
}
