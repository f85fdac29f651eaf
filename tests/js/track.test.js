// static/track.js: what the tracker sends, when, and what it does with each answer. The browser's parts that it uses are
// faked here.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { beforeEach, test } from 'node:test';
import { runInNewContext } from 'node:vm';

const source = readFileSync(new URL('../../static/track.js', import.meta.url), 'utf8');

let requests;
let answers;
let timers;
let listeners;
let page;

/** A page with the tracker; `parts` replace what the browser has. */
function open(parts = {}) {
  requests = [];
  answers = [];
  timers = [];
  listeners = new Map();
  const addEventListener = (name, listener) => listeners.set(name, [...(listeners.get(name) ?? []), listener]);
  const location = { host: 'shop.example', pathname: '/' };
  page = {
    navigator: {},
    location,
    history: { pushState: (_state, _title, path) => (location.pathname = path) },
    addEventListener,
    AbortSignal,
    Blob,
    crypto,
    queueMicrotask,
    setTimeout: (run, ms) => timers.push({ run, ms }),
    clearTimeout: (timer) => delete timers[timer - 1],
    fetch: (url, options) => {
      requests.push({ url, ...options, body: JSON.parse(options.body), bytes: options.body.length });
      return new Promise((resolve, reject) => answers.push({ resolve, reject }));
    },
    ...parts,
  };
  page.document = {
    currentScript: { src: 'https://js.footfall.example/track.js?v=1', dataset: {} },
    referrer: '',
    visibilityState: 'visible',
    addEventListener,
    ...parts.document,
  };
  page.window = page;
  runInNewContext(source, page);
}

/** Includes the script once more. */
const again = () => runInNewContext(source, page);

const track = (...event) => page.footfall.track(...event);

function dispatch(name, event = {}) {
  for (const listener of listeners.get(name) ?? []) listener(event);
}

/** Lets the pause of the next timer pass, and returns its seconds. */
function pass() {
  const timer = timers.findLast((timer) => timer);
  assert.ok(timer, 'no timer runs');
  timers.length = 0;
  timer.run();
  return timer.ms / 1000;
}

const isWaiting = () => timers.some((timer) => timer);

const settle = () => new Promise((resolve) => setImmediate(resolve));

/** Answers the oldest request. */
async function answer(status, { results, retryAfter } = {}) {
  const headers = new Map(retryAfter ? [['Retry-After', retryAfter]] : []);
  answers
    .shift()
    .resolve({ status, headers: { get: (name) => headers.get(name) ?? null }, json: async () => ({ results }) });
  await settle();
}

async function fail() {
  answers.shift().reject(new TypeError('Failed to fetch'));
  await settle();
}

const actions = (request) => request.body.events.map(({ action, n }) => (n === undefined ? action : `${action} ${n}`));

beforeEach(() => open());

test('it sends a batch after a second, as text, to its own address without .js', async () => {
  track('pay', { total: 31.5, user: 'Eve', id: 'x', time: 1 });
  assert.equal(requests.length, 0);
  assert.equal(pass(), 1);
  const [{ url, method, body, keepalive, credentials, headers, referrerPolicy, signal }] = requests;
  assert.equal(url, 'https://js.footfall.example/track');
  assert.deepEqual([method, keepalive, credentials, headers], ['POST', true, 'omit', undefined]);
  assert.equal(referrerPolicy, 'no-referrer', 'a Referer may have the query');
  assert.ok(signal instanceof AbortSignal, 'a request that hangs ends');
  const [view, pay] = body.events;
  assert.deepEqual(Object.keys(pay), ['user', 'action', 'site', 'page', 'total', 'id', 'time']);
  assert.deepEqual([view.action, view.page, view.user, pay.user], ['page_view', '/', pay.user, view.user]);
  assert.match(pay.id, /^[0-9a-z]{10,28}$/);
  assert.notEqual(pay.id, view.id);
  assert.ok(!('discarded' in body));
  await answer(201);
  assert.ok(!isWaiting());
});

test('each path is a view', () => {
  for (const path of ['/a', '/a', '/b']) page.history.pushState({}, '', path);
  page.location.pathname = '/a';
  dispatch('popstate');
  dispatch('popstate');
  dispatch('pageshow', { persisted: false });
  dispatch('pageshow', { persisted: true });
  pass();
  assert.deepEqual(
    requests[0].body.events.map((event) => event.page),
    ['/', '/a', '/b', '/a', '/a'],
  );
});

test('what was not answered is sent again with the same ids', async () => {
  pass();
  await fail();
  track('later');
  const pauses = [pass()];
  assert.deepEqual(actions(requests[1]), ['page_view', 'later']);
  assert.deepEqual(requests[1].body.events[0], requests[0].body.events[0]);
  for (const status of [500, 503, 429, 408, 504, 502, 503, 503, 503]) {
    await answer(status);
    pauses.push(pass());
  }
  pauses.forEach((pause, n) => {
    const most = Math.min(2 ** (n + 1), 300);
    assert.ok(pause >= most / 2 && pause <= most, `pause ${n} is ${pause}`);
  });
  await answer(201);
  assert.ok(!isWaiting());
  track('last');
  assert.equal(pass(), 1);
  assert.deepEqual(actions(requests.at(-1)), ['last']);
});

test('Retry-After is honoured, up to an hour', async () => {
  pass();
  for (const [retryAfter, least, most] of [
    ['30', 31, 32],
    ['9999999', 3602, 3604],
    ['Sat, 28 Nov 2026 00:00:00 GMT', 4, 8],
    ['-5', 8, 16],
  ]) {
    await answer(503, { retryAfter });
    const pause = pass();
    assert.ok(pause >= least && pause <= most, `${retryAfter}: ${pause}`);
    assert.ok(!Number.isInteger(pause), 'pages that failed together do not come back together');
  }
});

test('of a partial answer, what can be written later is sent again', async () => {
  for (let n = 0; n < 3; n++) track('step', { n });
  pass();
  const [written, later, refused] = [
    { status: 201 },
    { status: 503, retryable: true },
    { status: 422, retryable: false },
  ];
  await answer(207, { results: [written, later, refused, later] });
  pass();
  assert.deepEqual(actions(requests[1]), ['step 0', 'step 2']);
  assert.ok(!('discarded' in requests[1].body), 'the server has counted what it refused');
  await answer(422);
  assert.ok(!isWaiting());
});

test('a refused request is halved until the event that causes it is found', async () => {
  track('good');
  track('bad');
  track('fine');
  pass();
  const sent = () => actions(requests.at(-1));
  const found = [];
  for (let n = 0; n < 10 && answers.length; n++) {
    found.push(sent().join());
    await answer(sent().includes('bad') ? 400 : 201);
    if (isWaiting()) assert.ok(pass() <= 1, 'the server was reached');
  }
  assert.deepEqual(found, ['page_view,good,bad,fine', 'page_view,good', 'bad,fine', 'bad', 'fine']);
  assert.deepEqual(requests.at(-1).body.discarded, [{ reason: 'refused', quantity: 1 }]);
});

test('how many events the server accepts is remembered', async () => {
  const limit = 8;
  for (let n = 0; n < 29; n++) track('step', { n });
  pass();
  while (answers.length) {
    await answer(requests.at(-1).body.events.length > limit ? 413 : 201);
    if (isWaiting()) pass();
  }
  const before = requests.length;
  for (let n = 0; n < 20; n++) track('last', { n });
  dispatch('pagehide');
  const last = requests.slice(before).map((request) => request.body.events);
  assert.ok(
    last.every((events) => events.length <= limit),
    `${last.map((events) => events.length)}`,
  );
  assert.equal(last.flat().length, 20, 'all are sent when the page ends');
});

test('an event that is too large for the server does not slow down the others', async () => {
  for (const action of ['large', 'a', 'b']) track(action);
  pass();
  while (answers.length) {
    await answer(actions(requests.at(-1)).includes('large') ? 413 : 201);
    if (isWaiting()) pass();
  }
  for (let n = 0; n < 4; n++) track('s');
  pass();
  assert.equal(requests.at(-1).body.events.length, 4);
});

test('a request that is refused as a whole is lost, and a single event that is too large', async () => {
  pass();
  await answer(413);
  for (const status of [401, 402, 415, 302]) {
    track('more');
    pass();
    await answer(status);
  }
  assert.ok(!isWaiting());
  track('last');
  pass();
  // The report of the first loss was never confirmed; the others wait for the next one.
  assert.deepEqual(requests.at(-1).body.discarded, [{ reason: 'too_large', quantity: 1 }]);
  await answer(201);
  dispatch('pagehide');
  assert.deepEqual(requests.at(-1).body.discarded, [{ reason: 'refused', quantity: 4 }]);
  assert.deepEqual(requests.at(-1).body.events, []);
  await answer(415);
  // The report waits. A refusal of it alone loses no event, so that there is nothing new to report.
  dispatch('pagehide');
  assert.deepEqual(requests.at(-1).body, requests.at(-2).body);
  await answer(200);
  dispatch('pagehide');
  assert.equal(answers.length, 0);
});

test('when the page ends, losses are reported also while requests are in flight', async () => {
  track('loop', { n: 1n });
  pass();
  track('loop', { n: 1n });
  dispatch('pagehide');
  const [first, second, ...more] = requests.map(({ body }) => body);
  assert.deepEqual([first.discarded, second.discarded], Array(2).fill([{ reason: 'invalid', quantity: 1 }]));
  assert.notEqual(first.id, second.id);
  assert.deepEqual(more, []);
  // Both are sent again as they were, and the events once.
  await fail();
  await fail();
  track('loop', { n: 1n });
  dispatch('pagehide');
  const again = requests.slice(2).map(({ body }) => body);
  assert.deepEqual(again.map(({ id }) => id).slice(0, 2), [first.id, second.id]);
  assert.equal(again.flatMap(({ events }) => events).length, 1);
  assert.deepEqual(again.at(-1).discarded, [{ reason: 'invalid', quantity: 1 }]);
  assert.equal(again.length, 3);
});

test('the reports that are not confirmed are bounded', async () => {
  for (let n = 0; n < 20; n++) {
    track('loop', { n: 1n });
    dispatch('pagehide');
    while (answers.length) await fail();
  }
  requests.length = 0;
  dispatch('pagehide');
  assert.equal(requests.length, 5);
  while (answers.length) await answer(201);
  dispatch('pagehide');
  const reported = requests.flatMap(({ body }) => body.discarded).reduce((sum, { quantity }) => sum + quantity, 0);
  assert.equal(reported, 20);
});

test('a report of losses keeps its id until it is confirmed', async () => {
  track('loop', { n: 1n });
  pass();
  await fail();
  track('loop', { n: 1n });
  for (const status of [503, 415]) {
    pass();
    assert.equal(requests.at(-1).body.id, requests[0].body.id);
    assert.deepEqual(requests.at(-1).body.discarded, [{ reason: 'invalid', quantity: 1 }]);
    await answer(status);
  }
  track('next');
  pass();
  assert.equal(requests.at(-1).body.id, requests[0].body.id);
  await answer(201);
  track('next');
  pass();
  assert.notEqual(requests.at(-1).body.id, requests[0].body.id);
  assert.deepEqual(requests.at(-1).body.discarded, [
    { reason: 'invalid', quantity: 1 },
    { reason: 'refused', quantity: 1 },
  ]);
});

test('the queue is bounded, and all of it fits into the requests of a page that ends', async () => {
  for (let n = 0; n < 10; n++) track('step', { n, text: '\u00e4'.repeat(1000) });
  pass();
  for (let n = 0; n < 40; n++) track('step', { n, text: 'x'.repeat(1000) });
  track('large', { text: 'x'.repeat(33000) });
  dispatch('pagehide');
  assert.equal(requests.length, 2, 'also while a request is in flight');
  const events = requests.flatMap((request) => request.body.events);
  const bytes = requests.reduce((sum, request) => sum + new Blob([JSON.stringify(request.body)]).size, 0);
  assert.ok(bytes > 55_000 && bytes < 65_536, `${bytes} bytes`);
  const [full, large] = requests[1].body.discarded;
  assert.deepEqual([full.reason, large], ['queue_full', { reason: 'too_large', quantity: 1 }]);
  assert.equal(events.length + full.quantity, 51);
  assert.equal(new Set(events.map((event) => event.id)).size, events.length);
  await answer(201);
  await answer(201);
  dispatch('pageshow', {});
  for (let n = 0; n < 600; n++) track('s');
  pass();
  dispatch('pagehide');
  const counts = requests.slice(2).map((request) => request.body.events.length);
  assert.ok(counts.length > 3 && counts.every((count) => count <= 100), `${counts}`);
  assert.ok(counts.reduce((sum, count) => sum + count) > 300, 'none waits for another request');
});

test('a hidden page sends at once, and each event once', async () => {
  page.document.visibilityState = 'hidden';
  dispatch('visibilitychange');
  dispatch('pagehide');
  assert.equal(requests.length, 1);
  await answer(201);
  assert.ok(!isWaiting());
});

test('what the page tracks in its own listeners of its end is sent at once', async () => {
  for (const name of ['pagehide', 'visibilitychange']) {
    open();
    page.addEventListener(name, () => {
      track('read', { percent: 80 });
      track('left');
    });
    if (name === 'visibilitychange') page.document.visibilityState = 'hidden';
    dispatch(name);
    await settle();
    assert.deepEqual(requests.map(actions), [['page_view'], ['read', 'left']], name);
    await answer(201);
    await answer(201);
    assert.ok(!isWaiting());
  }
});

test('a hidden page waits after an error, and a page that is seen again sends batches', async () => {
  dispatch('pagehide');
  await fail();
  track('later');
  await settle();
  assert.equal(requests.length, 1);
  dispatch('pageshow', { persisted: true });
  pass();
  assert.deepEqual(actions(requests[1]), ['page_view', 'later', 'page_view']);
  await answer(201);
  track('seen');
  await settle();
  assert.equal(requests.length, 2);
  pass();
});

test('a prepared page sends when it is seen', () => {
  open({ document: { prerendering: true } });
  track('early');
  pass();
  dispatch('pagehide');
  assert.equal(requests.length, 0);
  page.document.prerendering = false;
  dispatch('prerenderingchange');
  pass();
  assert.deepEqual(actions(requests[0]), ['early', 'page_view']);
});

test('what a prepared page has tracked is sent when it is seen, also if its path has changed', () => {
  open({ document: { prerendering: true } });
  page.history.pushState({}, '', '/a');
  pass();
  page.document.prerendering = false;
  dispatch('prerenderingchange');
  pass();
  assert.deepEqual(actions(requests[0]), ['page_view']);
});

test('only the first view has the page before', () => {
  open({ document: { referrer: 'https://search.example/' } });
  dispatch('pageshow', { persisted: true });
  pass();
  assert.deepEqual(
    requests[0].body.events.map((event) => event.referrer),
    ['search.example', undefined],
  );
});

test('a page with two tags has one tracker', () => {
  again();
  dispatch('click', { target: { closest: () => ({ dataset: { track: 'buy' } }) } });
  dispatch('pagehide');
  assert.deepEqual(requests.map(actions), [['page_view', 'buy']]);
  open({ footfall: {} });
  track('an element with the id `footfall` is no tracker');
});

test('a click has the fields of its element', () => {
  const dataset = { track: 'signup', trackPlan: 'pro', trackOrderId: '7', tracking: '1', other: '1' };
  dispatch('click', { target: { closest: (selector) => (selector === '[data-track]' ? { dataset } : null) } });
  dispatch('click', { target: { closest: () => null } });
  dispatch('click', { target: {} });
  pass();
  const [, signup, ...more] = requests[0].body.events;
  const { user, id, time, ...fields } = signup;
  assert.deepEqual(fields, { action: 'signup', site: 'shop.example', page: '/', plan: 'pro', orderId: '7' });
  assert.deepEqual(more, []);
});

test('the user is that of the tag, or the one that the page names', () => {
  open({
    document: {
      currentScript: { src: 'http://a/track.js', dataset: { user: 'Bob' } },
      referrer: 'https://search.example/?q=private',
    },
  });
  page.footfall.identify(7);
  track('named');
  page.footfall.identify();
  track('unnamed');
  pass();
  const [bob, seven, unnamed] = requests[0].body.events;
  assert.deepEqual([bob.user, bob.referrer, seven.user], ['Bob', 'search.example', '7']);
  assert.ok(unnamed.user.length > 9);
});

test('who does not want to be tracked, and a program, is not', () => {
  for (const navigator of [{ doNotTrack: '1' }, { globalPrivacyControl: true }, { webdriver: true }]) {
    open({ navigator });
    track('wish');
    page.footfall.identify('Ann');
    dispatch('pagehide');
    assert.ok(!isWaiting() && requests.length === 0 && !listeners.size, JSON.stringify(navigator));
  }
});
