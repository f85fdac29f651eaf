// Times in the browser's zone, and ages.

import { $, number, write } from './words.js';

const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
// Swedish writes dates as ISO 8601 does.
const day = new Intl.DateTimeFormat('sv-SE');
const zone = new Intl.DateTimeFormat('en-GB', { timeZoneName: 'short' })
  .formatToParts(new Date())
  .find((part) => part.type === 'timeZoneName').value;

/** `12:04:31` in the browser's zone. */
export const clockTime = (date) => clock.format(date);

/** `2026-11-23 12:04:31.120 CET`. */
export function exactTime(date) {
  const ms = String(date.getMilliseconds()).padStart(3, '0');
  return `${day.format(date)} ${clock.format(date)}.${ms} ${zone}`;
}

const weekday = new Intl.DateTimeFormat('en-GB', { weekday: 'short', day: 'numeric', month: 'short' });

/** `Wed 25 Nov`. */
export const dayOf = (date) => weekday.format(date).replace(',', '');

/** A time as inputs of date and time have it: `2026-11-25T12:04:31`. */
export const inputTime = (date) => `${day.format(date)}T${clock.format(date)}`;

/** `12 s`, `3 min`, `5 h`, `40 d`. */
export function duration(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h`;
  return `${number(Math.floor(s / 86400))} d`;
}

/** Rewrites the times of new rows in the browser's zone. */
export function localTimes(rows, parent) {
  const today = day.format(new Date());
  for (const row of rows) {
    const time = row.querySelector?.('time');
    if (!time || time.date) continue;
    const date = new Date(time.dateTime);
    if (Number.isNaN(date.getTime())) continue;
    time.date = date;
    time.title = exactTime(date);
    const written = document.createElement('i');
    written.textContent = `${day.format(date)}\u00a0`;
    const at = document.createElement('span');
    at.textContent = clock.format(date);
    const ago = document.createElement('span');
    ago.className = 'ago';
    time.replaceChildren(written, at, ago);
    age(time, ago);
    if (day.format(date) !== today) parent.classList.add('dated');
  }
}

function age(time, ago) {
  const passed = Date.now() - time.date.getTime();
  // Clocks differ a little: show a time in the future only if it is more than a minute ahead.
  const text = passed < -60_000 ? `in ${duration(-passed)}` : passed < 1000 ? 'now' : duration(passed);
  write(ago, text);
}

/** Names the zone in the head of the list. */
export function showZone() {
  if ($('zone')) $('zone').textContent = zone;
}

/** Updates the ages in the list every second, those of visible rows only. */
export function showTimes(list) {
  showZone();
  localTimes(list.children, list);
  // Measure the row, not the age: measuring inside a row that is out of view would force its layout.
  const seen = (ago) => {
    const { top, bottom } = ago.closest('li').getBoundingClientRect();
    return bottom > 0 && top < innerHeight;
  };
  // Measure all rows before changing any, so that the page is laid out once.
  const refresh = () => {
    for (const ago of [...list.getElementsByClassName('ago')].filter(seen)) age(ago.parentNode, ago);
  };
  setInterval(() => {
    if (!document.hidden) refresh();
  }, 1000);
  addEventListener('scroll', () => requestAnimationFrame(refresh), { passive: true });
}
