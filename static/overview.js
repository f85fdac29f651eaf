// The overview moves with its stream: what differs is changed in place.

import { patch } from './refresh.js';

export function startOverview(part) {
  const words = document.getElementById('moving');
  const say = (text) => words.textContent !== text && (words.textContent = text);
  let source = null;
  const open = () => {
    source?.close();
    source = null;
    if (document.hidden) return;
    source = new EventSource('/stream/overview');
    source.onopen = () => say('Live: moves by itself.');
    source.onmessage = ({ data }) => {
      const fresh = part.cloneNode(false);
      fresh.innerHTML = data;
      patch(part, fresh);
    };
    source.onerror = () => {
      say(`The server does not answer since ${new Date().toLocaleTimeString('en-GB')}; what you see is from before. Trying on.`);
      // After a refusal EventSource does not come again by itself.
      if (source?.readyState === EventSource.CLOSED) setTimeout(open, 3000);
    };
  };
  document.addEventListener('visibilitychange', open);
  addEventListener('pagehide', () => source?.close());
  addEventListener('pageshow', (event) => event.persisted && open());
  open();
}
