// Every page works without script. This adds what needs one: local times, the full record under its row, searches that
// continue, a user's counts, keyboard shortcuts, and on the live page the stream and the form without a reload.

import { startFilters } from './filters.js';
import { startKeys } from './keys.js';
import { startLinks } from './like.js';
import { showTimes, startZone } from './time.js';
import { $, showBase } from './words.js';

document.documentElement.classList.add('scripted');

showBase(document);
startZone();
// A page restored from the back/forward cache shows the filters of its address, not what was typed before leaving it.
addEventListener('pageshow', ({ persisted }) => persisted && $('filters')?.reset());

const rows = $('rows');
if (rows) {
  showTimes(rows);
  // `toggle` does not bubble.
  rows.addEventListener('toggle', showRecord, true);
  startLinks(rows);
}
startKeys(rows);
async function showRecord({ target }) {
  if (!target.open || !target.querySelector('a.whole')) return;
  const { open } = await import('./record.js');
  open(target);
}
// One listener for all buttons, because the live page replaces those of its empty state.
addEventListener('click', async ({ target }) => {
  const button = target.closest('[data-copy]');
  if (!button) return;
  const { copyBy } = await import('./copy.js');
  copyBy(button, $(button.dataset.copy).textContent);
});
// The live page has its own.
if ($('filters') && rows?.dataset.cursor === undefined) startFilters($('filters'));
const overview = $('overview');
if (overview) {
  const { startOverview } = await import('./overview.js');
  startOverview(overview);
}
let charts;
const loadCharts = () => (charts ??= import('./chart.js').then(({ startCharts }) => startCharts()));
// On the live page when the strip is first used.
if ($('strip')) for (const type of ['pointerover', 'focusin']) $('strip').addEventListener(type, loadCharts);
else if (document.querySelector('.plot')) await loadCharts();
const user = rows?.dataset.filters !== undefined;
if ($('histogram')) {
  const { startHistory } = await import('./history.js');
  startHistory(rows);
}
if (user) {
  const { startUser } = await import('./user.js');
  startUser(rows);
} else if (rows?.dataset.cursor !== undefined) {
  const [{ startFeed }, { startForm }] = await Promise.all([import('./feed.js'), import('./form.js')]);
  startFeed(rows);
  startForm();
}
const moving = document.querySelector('[data-refresh]');
if (moving) {
  const { startRefresh } = await import('./refresh.js');
  startRefresh(moving);
}
const explanations = [...document.querySelectorAll('[data-explain]')];
if (explanations.length) {
  const { startExplanations } = await import('./explain.js');
  startExplanations(explanations);
}
