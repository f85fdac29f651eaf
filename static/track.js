// The tracker, for pages of other sites:
//
//   <script src="https://footfall.example/track.js" defer></script>
//
// It sends page views, clicks on elements with `data-track="signup"`, and what the page passes to
// `footfall.track(action, fields)`, to the address of this script without `.js`. docs/api.md describes it.
//
// It stores nothing in the browser: events wait in memory. Every event has an id, so that one that is sent again is
// written once, within the limits of safe retries. What is discarded is counted, and the count goes with a later request.
//
// Served without the lines that are comments. ASCII only.
(() => {
  // Most events, and bytes of them, that wait or are in flight. A browser lets a page that ends send 64 KiB.
  const EVENTS = 500;
  const BYTES = 60000;
  // Most events of a request, unless the server accepts fewer.
  const BATCH = 100;
  // Most reports of losses that the server has not confirmed. Each needs a request.
  const REPORTS = 5;
  // Most bytes of one event, as the server has it.
  const EVENT_BYTES = 32768;

  // The page has the script twice. An element with this id is no tracker.
  if (window.footfall?.track) return;
  const script = document.currentScript;
  const url = script.src.replace(/\.js([?#].*)?$/, '');
  const off = navigator.webdriver || navigator.globalPrivacyControl || navigator.doNotTrack === '1';

  // 128 random bits. `crypto.randomUUID` is missing on pages without HTTPS.
  const random = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join('');

  let user = script.dataset.user || random();
  // The events that are not settled, as JSON with the number of bytes and whether they are in flight.
  let queue = [];
  // Discarded events by reason, the reports of earlier ones that are not in flight, and how many are not confirmed.
  let lost = {};
  const reports = [];
  let unconfirmed = 0;
  let requests = 0;
  let timer;
  let hidden;
  let most = BATCH;
  // Seconds until the next attempt.
  let pause = 1;

  function lose(reason, quantity) {
    if (quantity) lost[reason] = (lost[reason] || 0) + quantity;
  }

  function later(seconds) {
    timer ||= setTimeout(send, seconds * 1000);
  }

  // Sends one request with what waits. Returns whether something waited.
  function send() {
    clearTimeout(timer);
    timer = 0;
    if (document.prerendering) return;
    const batch = queue.filter((event) => !event.sent).slice(0, most);
    const reasons = Object.entries(lost);
    if (!reports.length && reasons.length && unconfirmed < REPORTS) {
      reports.push({ id: random(), discarded: reasons.map(([reason, quantity]) => ({ reason, quantity })) });
      lost = {};
      unconfirmed++;
    }
    const report = reports.shift();
    if (!batch.length && !report) return;
    const rest = JSON.stringify(report || { id: random() }).slice(1);
    const body = `{"events":[${batch.map((event) => event.json)}],${rest}`;
    for (const event of batch) event.sent = 1;
    requests++;
    let confirmed;
    // Text needs no preflight. `Referer` would show the page's query.
    fetch(url, {
      method: 'POST',
      body,
      keepalive: true,
      credentials: 'omit',
      referrerPolicy: 'no-referrer',
      signal: AbortSignal.timeout?.(60000),
    })
      .then(async (answer) => {
        const { status } = answer;
        if (status === 408 || status === 429 || status > 499) {
          return [[], Math.min(answer.headers.get('Retry-After'), 3600)];
        }
        if (status === 400 || status === 413) {
          // There may be too many events, or one of them is why all are refused.
          if (batch.length > 1) {
            most = batch.length >> 1;
            pause = 0.5;
            return [[]];
          }
          most = BATCH;
        }
        if (status === 413) lose('too_large', batch.length);
        else if (status > 299 && status !== 422) lose('refused', batch.length);
        else confirmed = 1;
        const results = status === 207 ? (await answer.json()).results : [];
        return [batch.filter((_, index) => !results[index]?.retryable)];
      })
      // Nothing is known of the events: they are sent again.
      .catch(() => [[]])
      .then(([settled, wait]) => {
        requests--;
        if (report && confirmed) unconfirmed--;
        else if (report) reports.push(report);
        for (const event of batch) event.sent = 0;
        queue = queue.filter((event) => !settled.includes(event));
        if (settled.length || !batch.length) pause = 1;
        else pause = Math.min(pause * 2, 300);
        // Pages that failed together do not come back together.
        if (queue.some((event) => !event.sent)) later(Math.max(wait || 0, 0) + pause * (0.5 + Math.random() / 2));
      });
    return 1;
  }

  // Sends all that waits: the page may end.
  function flush() {
    while (send());
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
    // The page's own listener of its end runs after that of the tracker. A timer is a pause after an error.
    if (hidden && !timer) queueMicrotask(flush);
    else if (!requests) later(1);
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
    // Only the first view comes from there.
    const referrer = page == null ? document.referrer.split('/')[2] : undefined;
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
    hidden = false;
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
    hidden = document.visibilityState === 'hidden';
    if (hidden) flush();
  });
  addEventListener('pagehide', () => {
    hidden = true;
    flush();
  });
  addEventListener('online', send);
  // A prerendered page counts as viewed when the browser shows it.
  document.addEventListener('prerenderingchange', () => {
    view();
    later(1);
  });
  if (!document.prerendering) view();
})();
