// The tracker, for pages of other sites:
//
//   <script src="https://footfall.example/track.js" defer></script>
//
// It sends page views, clicks on elements with `data-track="signup"`, and what the page passes to
// `footfall.track(action, fields)`, to the address of this script without `.js`. docs/api.md describes it.
//
// It stores nothing in the browser: events wait in memory. Every event has an id, so that one that is sent again is written
// once. What is discarded is counted, and the count goes with a later request.
//
// Served without the lines that are comments. ASCII only.
(() => {
  // Most events, and bytes of them, that wait or are in flight. A browser lets a page that ends send 64 KiB.
  const EVENTS = 500;
  const BYTES = 60000;
  // Most bytes of one event, as the server has it.
  const EVENT_BYTES = 32768;

  const script = document.currentScript;
  const url = script.src.replace(/\.js([?#].*)?$/, '');
  const off = navigator.webdriver || navigator.globalPrivacyControl || navigator.doNotTrack === '1';

  // 128 random bits. `crypto.randomUUID` is missing on pages without HTTPS.
  const random = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join('');

  let user = script.dataset.user || random();
  // The events that are not settled, as JSON with the number of bytes and whether they are in flight.
  let queue = [];
  // Discarded events by reason, and the report of earlier ones that the server has not confirmed.
  let lost = {};
  let report;
  let requests = 0;
  let timer;
  // Most events of a request, and seconds until the next attempt.
  let most = EVENTS;
  let pause = 1;

  function lose(reason, quantity) {
    lost[reason] = (lost[reason] || 0) + quantity;
  }

  function later(seconds) {
    timer ||= setTimeout(send, seconds * 1000);
  }

  // Sends what waits. Called when the pause is over, and when the page is hidden, which may be its end.
  function send() {
    clearTimeout(timer);
    timer = 0;
    const batch = queue.filter((event) => !event.sent).slice(0, most);
    const reasons = Object.entries(lost);
    if (document.prerendering || (!batch.length && (requests || !(report || reasons.length)))) return;
    if (!report && reasons.length) {
      report = { id: random(), discarded: reasons.map(([reason, quantity]) => ({ reason, quantity })) };
      lost = {};
    }
    const reported = report;
    const rest = JSON.stringify(reported || { id: random() }).slice(1);
    const body = `{"events":[${batch.map((event) => event.json)}],${rest}`;
    for (const event of batch) event.sent = 1;
    requests++;
    // Text needs no preflight.
    fetch(url, { method: 'POST', body, keepalive: true, credentials: 'omit' })
      .then(async (answer) => {
        const { status } = answer;
        if (status === 408 || status === 429 || status > 499) {
          return [[], Math.min(answer.headers.get('Retry-After') || 0, 3600)];
        }
        // One event may be why all are refused.
        if ((status === 400 || status === 413) && batch.length > 1) {
          most = batch.length >> 1;
          return [[]];
        }
        if (status === 413) lose('too_large', batch.length);
        else if (status > 299 && status !== 422) lose('refused', batch.length);
        else if (report === reported) report = undefined;
        const results = status === 207 ? (await answer.json()).results : [];
        most = EVENTS;
        return [batch.filter((_, index) => !results[index]?.retryable)];
      })
      // Nothing is known of the events: they are sent again.
      .catch(() => [[]])
      .then(([settled, wait]) => {
        requests--;
        for (const event of batch) event.sent = 0;
        queue = queue.filter((event) => !settled.includes(event));
        if (settled.length || !batch.length) pause = 1;
        else pause = Math.min(pause * 2, 300);
        // Pages that failed together do not come back together.
        if (queue.some((event) => !event.sent)) later(Math.max(wait || 0, pause * (0.5 + Math.random() / 2)));
      });
  }

  function track(action, fields) {
    if (off) return;
    const place = { user, action, site: location.host, page: location.pathname };
    let json;
    try {
      json = JSON.stringify({ ...place, ...fields, user, action, id: random(), time: new Date() });
    } catch {
      return lose('invalid', 1);
    }
    const bytes = new Blob([json]).size;
    const waiting = queue.reduce((sum, event) => sum + event.bytes, bytes);
    if (bytes > EVENT_BYTES) return lose('too_large', 1);
    if (queue.length >= EVENTS || waiting > BYTES) return lose('queue_full', 1);
    queue.push({ json, bytes });
    if (!requests) later(1);
  }

  window.footfall = {
    track,
    identify(name) {
      user = name ? `${name}` : random();
    },
  };
  if (off) return;

  let page;
  function view() {
    // `popstate` also comes when only the fragment changes.
    if (page === location.pathname) return;
    const referrer = page ? undefined : document.referrer.split('/')[2];
    page = location.pathname;
    track('page_view', { referrer });
  }

  const { pushState } = history;
  history.pushState = function (...state) {
    pushState.apply(this, state);
    view();
  };
  addEventListener('popstate', view);
  // From the back/forward cache.
  addEventListener('pageshow', (event) => {
    if (!event.persisted) return;
    page = '';
    view();
  });
  // Before the page's own listeners, which may stop the event.
  const click = (event) => {
    const found = event.target.closest?.('[data-track]');
    if (!found) return;
    const fields = {};
    for (const [name, value] of Object.entries(found.dataset)) {
      // `data-track-plan` is `trackPlan`.
      if (/^track[A-Z]/.test(name)) fields[name[5].toLowerCase() + name.slice(6)] = value;
    }
    track(found.dataset.track, fields);
  };
  document.addEventListener('click', click, true);
  document.addEventListener('visibilitychange', () => {
    if (document.visibilityState === 'hidden') send();
  });
  addEventListener('pagehide', send);
  addEventListener('online', send);
  // A page that the browser has prepared is viewed when somebody sees it.
  document.addEventListener('prerenderingchange', view);
  if (!document.prerendering) view();
})();
