// Every page works as the server sent it; this adds what needs a script: the reader's own time zone, the whole record in
// place, searches that go on, the sums of a user, and on the live page the stream, the form without a reload, and the keys.

import { showRecords } from './record.js';
import { showTimes } from './time.js';

document.documentElement.classList.add('scripted');

const rows = document.getElementById('rows');
if (rows) {
  showTimes(rows);
  showRecords(rows);
}
for (const button of document.querySelectorAll('[data-copy]')) {
  const { copies } = await import('./copy.js');
  copies(button, () => document.getElementById(button.dataset.copy).textContent);
}
const overview = document.getElementById('overview');
if (overview) {
  const { startOverview } = await import('./overview.js');
  startOverview(overview);
}
const person = rows?.dataset.filters !== undefined;
const search = document.getElementById('search');
if (search && !person) {
  const { startSearch } = await import('./history.js');
  startSearch(search, rows);
}
if (person) {
  const { startPerson } = await import('./person.js');
  startPerson(rows);
} else if (rows?.dataset.cursor !== undefined) {
  const [{ startFeed }, { startForm }, { startKeys }] = await Promise.all([
    import('./feed.js'),
    import('./form.js'),
    import('./keys.js'),
  ]);
  startFeed(rows);
  startForm();
  startKeys(rows);
}
const moving = document.querySelector('[data-refresh]');
if (moving) {
  const { startRefresh } = await import('./refresh.js');
  startRefresh(moving);
}
