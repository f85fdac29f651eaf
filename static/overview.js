// Updates the overview from its stream, in place.

import { patch } from './patch.js';
import { clockTime } from './time.js';
import { $, at, write } from './words.js';

export function startOverview(part) {
  const say = (text) => write($('moving'), text);
  let source = null;
  let updated = new Date();
  const open = () => {
    source?.close();
    source = null;
    if (document.hidden) return;
    source = new EventSource(at(`/stream/overview?${part.dataset.query}`));
    source.onopen = () => say('Live');
    source.onmessage = ({ data }) => {
      const fresh = part.cloneNode(false);
      fresh.innerHTML = data;
      patch(part, fresh);
      updated = new Date();
    };
    source.onerror = () => {
      say(`Server unreachable. Showing data from ${clockTime(updated)}. Retrying…`);
      // EventSource does not reconnect after an answer other than 200.
      if (source?.readyState === EventSource.CLOSED) setTimeout(open, 3000);
    };
  };
  document.addEventListener('visibilitychange', open);
  addEventListener('pagehide', () => source?.close());
  addEventListener('pageshow', (event) => event.persisted && open());
  open();
}
