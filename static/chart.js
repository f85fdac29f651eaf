// The crosshair of charts, their tooltip, and the choice of a time range, by pointer and by keyboard. Charts are rendered by
// the server; what is shown here lies over them, so they can be replaced beneath at any time.

import { inputTime, zoneAt } from './time.js';
import { number } from './words.js';

/** The index of the column at a place, from 0 to 1 of the width. */
export const columnAt = (place, columns) => Math.max(0, Math.min(columns - 1, Math.floor(place * columns)));

/** Start and end of the columns between two indexes, in either order. */
export function rangeOf(columns, a, b) {
  const [first, last] = a < b ? [a, b] : [b, a];
  return { from: columns[first].from, to: columns[last].to };
}

/** The address of the history of a time range. */
export function addressOf(history, { from, to }) {
  const [path, query] = history.split('?');
  const all = new URLSearchParams(query);
  for (const [name, ms] of [
    ['since', from],
    ['until', to],
  ])
    all.set(name, new Date(ms).toISOString().replace('.000Z', 'Z'));
  return `${path}?${all}`;
}

/** The lines of a column's tooltip: the most frequent first, at most five. */
export function linesOf(names, colours, values) {
  const lines = values.map((value, index) => ({ name: names[index], colour: colours[index], value }));
  return lines
    .filter(({ value }) => value > 0)
    .sort((a, b) => b.value - a.value)
    .slice(0, 5);
}

/** The columns of a chart, all but those of the future, as its links say. */
export function columnsOf(plot) {
  const [start, step] = [Number(plot.dataset.start), Number(plot.dataset.step)];
  return [...plot.querySelectorAll('svg a')].map(({ dataset }, index) => ({
    from: start + index * step,
    to: start + (index + 1) * step,
    state: dataset.state,
    values: dataset.n.split(',').map(Number),
  }));
}

const element = (name, className, text = '') => {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
};

/** The chart with the crosshair, the time of its column, that of the column where a range starts, and whether to speak. */
let shown = null;
/** The column where a pointer was pressed, and whether it has left it. */
let pressed = null;
let dragged = false;

/** Notices that the chart with the crosshair was updated. */
let observer = null;

/** All columns, those of the future too, which have no link. */
const slots = (plot) => Math.round(plot.querySelector('svg').viewBox.baseVal.width / 10);

const indexOf = (columns, from) => columns.findIndex((column) => column.from === from);

/** Draws the crosshair, the range and the tooltip. */
function show() {
  const { plot } = shown;
  const over = plot.querySelector('.over');
  const columns = columnsOf(plot);
  const index = indexOf(columns, shown.at);
  // The column has left the chart.
  if (!over || index < 0) return hide();
  const width = 100 / slots(plot);
  const cross = element('div', 'cross');
  cross.style.left = `${(index + 0.5) * width}%`;
  const parts = [cross];
  const anchor = shown.anchor === null ? -1 : Math.max(0, indexOf(columns, shown.anchor));
  if (anchor >= 0) {
    const range = element('div', 'range');
    range.style.left = `${Math.min(anchor, index) * width}%`;
    range.style.width = `${(Math.abs(anchor - index) + 1) * width}%`;
    parts.push(range);
  }
  const tip = tooltip(plot, columns, index, anchor < 0 ? index : anchor);
  if (index * width < 50) tip.style.left = `calc(${(index + 1) * width}% + 8px)`;
  else tip.style.right = `calc(${100 - index * width}% + 8px)`;
  parts.push(tip);
  // Only what the keyboard did is read aloud: a pointer passes many columns, and counts rise.
  over.ariaLive = shown.spoken ? 'polite' : 'off';
  over.replaceChildren(...parts);
}

function tooltip(plot, columns, a, b) {
  const { dataset } = plot;
  const [first, last] = a < b ? [a, b] : [b, a];
  const within = columns.slice(first, last + 1);
  const { from, to } = rangeOf(columns, a, b);
  const tip = element('div', 'tip');
  tip.append(element('p', '', `${clock(from, to - from)} – ${clock(to, to - from)} ${zoneAt(new Date(from))}`));
  if (within.every(({ state }) => state === 'no-data')) {
    tip.append(element('p', '', 'No data'));
  } else {
    const values = within[0].values.map((_, index) => within.reduce((sum, column) => sum + column.values[index], 0));
    const total = values.reduce((sum, value) => sum + value, 0);
    const soFar = within.some(({ state }) => state === 'filling') ? ' so far' : '';
    tip.append(element('p', '', `${number(total)} ${dataset.unit}${total === 1 ? '' : 's'}${soFar}`));
    const names = JSON.parse(dataset.names);
    for (const { name, colour, value } of names.length > 1 ? linesOf(names, dataset.colours.split(' '), values) : []) {
      const line = element('p', '');
      line.append(element('i', `mark ${colour}`), element('bdi', '', name), element('b', '', number(value)));
      tip.append(line);
    }
  }
  return tip;
}

/** A time, as exact as the length of its span needs. */
function clock(ms, length) {
  const [day, time] = inputTime(new Date(ms)).split('T');
  const exact = time.slice(0, length < 60_000 ? 8 : 5);
  return Date.now() - ms < 86_400_000 ? exact : `${day.slice(5)} ${exact}`;
}

function hide() {
  shown?.plot.querySelector('.over')?.replaceChildren();
  observer?.disconnect();
  shown = null;
}

/** Moves the crosshair to a column. */
function move(plot, columns, index, { anchor = null, spoken = false }) {
  if (shown?.plot !== plot) {
    hide();
    observer ??= new MutationObserver(() => {
      if (!shown) return;
      shown.spoken = false;
      show();
    });
    observer.observe(plot, { subtree: true, attributeFilter: ['data-n', 'data-start'] });
  }
  shown = { plot, at: columns[index].from, anchor, spoken };
  show();
}

/** Leads to the history of the range, unless the page has another use for it and cancels the event `chart-range`. */
function choose(plot, range) {
  const event = new CustomEvent('chart-range', { bubbles: true, cancelable: true, detail: range });
  if (plot.dispatchEvent(event)) location.assign(addressOf(plot.dataset.history, range));
}

function pointed(event) {
  const plot = event.target.closest?.('.plot');
  const columns = plot ? columnsOf(plot) : [];
  if (columns.length === 0) return null;
  const { left, width } = plot.querySelector('svg').getBoundingClientRect();
  const index = Math.min(columnAt((event.clientX - left) / width, slots(plot)), columns.length - 1);
  return { plot, columns, index };
}

/** Starts the crosshair of all charts, also of those that come later. */
export function startCharts() {
  addEventListener('pointermove', (event) => {
    const place = pointed(event);
    if (pressed && place?.plot === pressed.plot) {
      dragged ||= place.columns[place.index].from !== pressed.from;
      return move(place.plot, place.columns, place.index, { anchor: dragged ? pressed.from : null });
    }
    if (place) move(place.plot, place.columns, place.index, {});
    else if (shown && !pressed && !shown.plot.contains(document.activeElement)) hide();
  });
  addEventListener('pointerdown', (event) => {
    const place = event.button === 0 ? pointed(event) : null;
    if (!place) return;
    pressed = { plot: place.plot, from: place.columns[place.index].from };
    dragged = false;
    move(place.plot, place.columns, place.index, {});
  });
  addEventListener('pointerup', () => {
    const { plot, at: end, anchor } = shown ?? {};
    if (pressed && dragged && plot === pressed.plot && anchor !== null) {
      const columns = columnsOf(plot);
      const [a, b] = [indexOf(columns, anchor), indexOf(columns, end)];
      if (a >= 0 && b >= 0) choose(plot, rangeOf(columns, a, b));
    }
    pressed = null;
  });
  addEventListener('pointercancel', () => {
    pressed = null;
    hide();
  });
  // The end of a drag is not a click on the column, and a column is not dragged to the address bar.
  addEventListener('click', (event) => {
    if (dragged && event.target.closest?.('.plot')) event.preventDefault();
    dragged = false;
  });
  addEventListener('dragstart', (event) => event.target.closest?.('.plot') && event.preventDefault());
  addEventListener(
    'focusout',
    ({ relatedTarget }) => shown && !pressed && !shown.plot.contains(relatedTarget) && hide(),
  );
  addEventListener('keydown', (event) => {
    const plot = event.target.closest?.('.plot');
    if (!plot || event.ctrlKey || event.metaKey || event.altKey) return;
    const columns = columnsOf(plot);
    if (columns.length === 0) return;
    const here = shown?.plot === plot ? indexOf(columns, shown.at) : -1;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) {
      const index = here < 0 ? columns.length - 1 : Math.max(0, Math.min(columns.length - 1, here + step));
      const anchor = event.shiftKey ? (shown?.anchor ?? columns[Math.max(here, 0)].from) : null;
      move(plot, columns, index, { anchor: here < 0 ? null : anchor, spoken: true });
    } else if (event.key === 'Enter' && here >= 0) {
      choose(plot, rangeOf(columns, shown.anchor === null ? here : Math.max(0, indexOf(columns, shown.anchor)), here));
    } else if (event.key === 'Escape' && shown) {
      if (shown.anchor === null) hide();
      else move(plot, columns, here, { spoken: true });
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });
}
