// Keeps the strip of the last minutes up to date while the page is visible, and learns from it how far the server is.

import { patch } from './patch.js';
import { $, at } from './words.js';

const EVERY = 3000;

/** `filters()` are those of the page; `head(cursor)` gets the cursor of the live end. */
export function startStrip(filters, head) {
  let timer = 0;
  const update = async () => {
    clearTimeout(timer);
    if (document.hidden) return;
    const query = `${filters()}`;
    try {
      const answer = await fetch(at(`/strip?${query}`), { signal: AbortSignal.timeout(15_000) });
      const text = answer.ok ? await answer.text() : '';
      const fresh = new DOMParser().parseFromString(text, 'text/html').getElementById('strip');
      // An answer for other filters is too late.
      if (fresh && query === `${filters()}`) {
        patch($('strip'), fresh);
        head(fresh.dataset.head);
      }
    } catch {
      // The page says by itself that the server is unreachable.
    }
    clearTimeout(timer);
    timer = setTimeout(update, EVERY);
  };
  document.addEventListener('visibilitychange', update);
  timer = setTimeout(update, EVERY);
}
