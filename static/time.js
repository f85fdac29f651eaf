// Times in the zone of the page, and ages.

import { $, number, remember, write } from './words.js';

const root = globalThis.document?.documentElement;
const own = Intl.DateTimeFormat().resolvedOptions().timeZone;

/** Keeps the browser's zone for the next pages, which the server then renders in it. Returns whether the browser does so. */
function keep() {
  remember('zone', own);
  return document.cookie.split('; ').includes(`zone=${own}`);
}

/** Whether the server does not know the zone yet, so that the times on this page are in UTC. */
export const isFirst = Boolean(root) && root.dataset.zone === undefined && keep();
const timeZone = known(root ? (root.dataset.zone ?? (isFirst ? own : 'UTC')) : own);

/** Older browsers do not know offsets such as `+05:30` as zones. */
function known(timeZone) {
  try {
    return Intl.DateTimeFormat('en', { timeZone }).resolvedOptions().timeZone;
  } catch {
    return 'UTC';
  }
}

const clock = new Intl.DateTimeFormat('en-GB', { timeZone, hour: '2-digit', minute: '2-digit', second: '2-digit' });
// Swedish writes dates as ISO 8601 does.
const day = new Intl.DateTimeFormat('sv-SE', { timeZone });
const offset = new Intl.DateTimeFormat('en-GB', { timeZone, timeZoneName: 'shortOffset' });

/** The distance of the zone from UTC at a time: `UTC+1`. */
export const zoneAt = (date) =>
  offset
    .formatToParts(date)
    .find(({ type }) => type === 'timeZoneName')
    .value.replace('GMT', 'UTC')
    .replace(/\+0$/, '');

/** `12:04:31`. */
export const clockTime = (date) => clock.format(date);

/** `2026-11-23 12:04:31.120 UTC+1`. */
export function exactTime(date) {
  const ms = String(date.getMilliseconds()).padStart(3, '0');
  return `${day.format(date)} ${clock.format(date)}.${ms} ${zoneAt(date)}`;
}

const weekday = new Intl.DateTimeFormat('en-GB', { timeZone, weekday: 'short', day: 'numeric', month: 'short' });

/** `Wed 25 Nov`. */
export const dayOf = (date) => weekday.format(date).replace(',', '');

/** A time as inputs of date and time have it: `2026-11-25T12:04:31`. */
export const inputTime = (date) => `${day.format(date)}T${clock.format(date)}`;

/** A time as pages show it, with or without its day and its zone, as an input has it; null if the text has none. */
export function copiedTime(text) {
  const [found, date, time, zone, sign, hours, minutes = 0] =
    text.match(/(?:(\d{4}-\d\d-\d\d)[T\s])?(\d\d:\d\d(?::\d\d)?)\S*(?:\s(UTC)(?:([+-])(\d+)(?::(\d\d))?)?)?/) ?? [];
  if (!found) return null;
  const input = `${date ?? inputTime(new Date()).slice(0, 10)}T${time}`;
  if (!zone) return input;
  const ahead = hours ? (Number(hours) * 60 + Number(minutes)) * 60_000 * (sign === '-' ? -1 : 1) : 0;
  return inputTime(new Date(Date.parse(`${input}Z`) - ahead));
}

/** `12 s`, `3 min`, `5 h`, `40 d`. */
export function duration(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h`;
  return `${number(Math.floor(s / 86400))} d`;
}

/** Rewrites the times of new rows in the zone of the page. */
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
  if ($('zone')) write($('zone'), zoneAt(new Date()));
}

/** Offers the browser's zone in the header, and on the first page names it there. */
export function startZone() {
  const local = $('zone-own');
  if (!local) return;
  local.value = own;
  local.textContent = `Local: ${own}`;
  // The address may have changed since the page was loaded.
  for (const { form } of document.getElementsByName('back'))
    form.addEventListener('submit', () => (form.elements.back.value = location.pathname + location.search));
  if (isFirst) {
    for (const name of document.querySelectorAll('.zone-name')) name.value = name.textContent = own;
    document.querySelector('.zone-now').lastChild.data = zoneAt(new Date());
  }
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
