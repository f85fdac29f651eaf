// Remembers in a cookie which explanations are open: the server renders the page with them.

import { remember } from './words.js';

export function startExplanations(boxes) {
  const keep = () => {
    const open = boxes.filter((box) => box.open).map((box) => box.dataset.explain);
    remember('footfall_explain', open.join('.'));
  };
  for (const box of boxes) box.addEventListener('toggle', keep);
}
