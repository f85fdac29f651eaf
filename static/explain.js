// Remembers in a cookie which explanations are open: the server renders the page with them.

import { at } from './words.js';

export function startExplanations(boxes) {
  const remember = () => {
    const open = boxes.filter((box) => box.open).map((box) => box.dataset.explain);
    // biome-ignore lint/suspicious/noDocumentCookie: the Cookie Store API needs HTTPS
    document.cookie = `footfall_explain=${open.join('.')};path=${at('/kafka')};max-age=31536000;samesite=lax`;
  };
  for (const box of boxes) box.addEventListener('toggle', remember);
}
