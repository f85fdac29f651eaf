// Fetches the page again every few seconds and changes it in place.

import { patch } from './patch.js';
import { clockTime } from './time.js';
import { $, write } from './words.js';

const words = $('refreshed');

const say = (text) => words && write(words, text);

/** Keeps the element, and the state of Kafka in the header, up to date while the page is visible. */
export function startRefresh(element) {
  const every = Number(element.dataset.refresh) * 1000;
  const parts = [element.id, 'broker-notice', 'state'];
  let timer;
  let fetching = false;
  let updated = new Date();
  let shown = '';

  async function refresh() {
    if (fetching || document.hidden) return;
    fetching = true;
    try {
      const answer = await fetch(location.href, { signal: AbortSignal.timeout(15_000) });
      if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
      const text = await answer.text();
      const page = text === shown ? null : new DOMParser().parseFromString(text, 'text/html');
      for (const id of page ? parts : []) {
        const [old, fresh] = [$(id), page.getElementById(id)];
        if (old && fresh) patch(old, fresh);
      }
      shown = text;
      updated = new Date();
      say(`Updates every ${every / 1000} s`);
    } catch {
      say(`Server unreachable. Showing data from ${clockTime(updated)}. Retrying…`);
    }
    fetching = false;
    schedule();
  }

  function schedule() {
    clearTimeout(timer);
    if (!document.hidden) timer = setTimeout(refresh, every);
  }

  document.addEventListener('visibilitychange', () => (document.hidden ? clearTimeout(timer) : refresh()));
  say(`Updates every ${every / 1000} s`);
  schedule();
}
