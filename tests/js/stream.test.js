// static/stream.js: when the page connects, at which cursor, and what it says of the connection. The browser's parts that
// it uses are played here.

import assert from 'node:assert/strict';
import { beforeEach, mock, test } from 'node:test';

let sources;
let listeners;
let states;
let events;
let controls;
let positions;
let answer;
let buffering;
let now = 0;

class FakeEventSource {
  static CLOSED = 2;
  readyState = 0;
  #listeners = new Map();

  constructor(url) {
    this.url = url;
    sources.push(this);
  }

  addEventListener(name, listener) {
    this.#listeners.set(name, listener);
  }

  close() {
    this.readyState = FakeEventSource.CLOSED;
  }

  open() {
    this.readyState = 1;
    this.onopen();
  }

  message(data, lastEventId) {
    this.onmessage({ data, lastEventId });
  }

  control(name, data, lastEventId) {
    this.#listeners.get(name)({ data, lastEventId });
  }

  fail(readyState) {
    this.readyState = readyState;
    this.onerror();
  }
}

const listen = (name, listener) => listeners.set(name, listener);
globalThis.EventSource = FakeEventSource;
globalThis.document = { hidden: false, addEventListener: listen };
globalThis.addEventListener = listen;
globalThis.fetch = async () => answer;
Date.now = () => now;

mock.timers.enable({ apis: ['setTimeout', 'setInterval'] });
const { Stream } = await import('../../static/stream.js');
// The server's base path, as far as the scripts can know here: the folder above theirs.
const base = new URL('../..', import.meta.url).pathname.slice(0, -1);

function start(cursor = 'c0', filters = {}) {
  return new Stream(cursor, filters, {
    event: (...event) => events.push(event),
    control: (...control) => controls.push(control),
    position: (...position) => positions.push(position),
    state: (state) => states.push(state),
    buffering: (buffers) => buffering.push(buffers),
  });
}

function hide(hidden) {
  document.hidden = hidden;
  listeners.get('visibilitychange')();
}

const open = () => sources.filter((source) => source.readyState !== FakeEventSource.CLOSED);
const last = () => sources.at(-1);
const kind = () => states.at(-1).kind;

beforeEach(() => {
  mock.timers.reset();
  mock.timers.enable({ apis: ['setTimeout', 'setInterval'] });
  [sources, states, events, controls, positions, buffering] = [[], [], [], [], [], []];
  listeners = new Map();
  document.hidden = false;
  answer = { ok: true };
});

test('the stream is asked for after the cursor, with the filters', () => {
  start('p0=5', { user: 'Ann', action: 'log in' });
  assert.equal(last().url, `${base}/stream?user=Ann&action=log+in&after=p0%3D5`);
  assert.equal(kind(), 'connecting');
  last().open();
  assert.equal(kind(), 'live');
});

test('each event comes with the cursors before and after it', () => {
  start();
  last().open();
  last().message('<li>1</li>', 'c1');
  last().message('<li>2</li>', 'c2');
  assert.deepEqual(events, [
    ['<li>1</li>', 'c0', 'c1'],
    ['<li>2</li>', 'c1', 'c2'],
  ]);
});

test('a control message is parsed and moves the cursor', () => {
  start();
  last().control('gap', '{"count":3}', 'c4');
  last().control('status', 'no JSON', '');
  assert.deepEqual(controls, [
    ['gap', { count: 3 }, 'c0', 'c4'],
    ['status', {}, 'c4', 'c4'],
  ]);
});

test('a position moves the cursor and shows nothing', () => {
  const stream = start();
  last().control('position', '', 'c7');
  assert.deepEqual([stream.cursor, events, controls], ['c7', [], []]);
});

test('after a refusal it tries again at the last cursor, later each time and half a minute at most', () => {
  start();
  last().open();
  last().message('<li>1</li>', 'c1');
  for (const longest of [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]) {
    const before = sources.length;
    last().fail(FakeEventSource.CLOSED);
    assert.equal(kind(), 'lost');
    mock.timers.tick(longest / 2 - 1);
    assert.equal(sources.length, before, `it came back before half of ${longest} ms`);
    mock.timers.tick(longest / 2 + 1);
    assert.equal(sources.length, before + 1, `it did not come back within ${longest} ms`);
    assert.equal(last().url, `${base}/stream?after=c1`);
  }
});

test('a broken connection is left to EventSource', () => {
  start();
  last().open();
  last().fail(0);
  assert.equal(kind(), 'lost');
  mock.timers.tick(60_000);
  assert.equal(sources.length, 1);
  last().open();
  assert.equal(kind(), 'live');
});

test('`lost` keeps its beginning through the tries', () => {
  start();
  last().open();
  last().fail(FakeEventSource.CLOSED);
  const { since } = states.at(-1);
  now += 1000;
  mock.timers.tick(1000);
  last().fail(FakeEventSource.CLOSED);
  assert.equal(states.at(-1).since, since);
});

test('a computer that slept reconnects at the cursor', () => {
  start();
  last().open();
  last().message('<li>1</li>', 'c1');
  mock.timers.tick(1000);
  assert.equal(sources.length, 1);
  now += 30_001;
  mock.timers.tick(1000);
  assert.deepEqual([sources.length, open().length, last().url], [2, 1, `${base}/stream?after=c1`]);
});

test('after `bye` it comes back within one and a half seconds, without a word of loss', () => {
  start();
  last().open();
  last().control('bye', '', 'c9');
  assert.equal(open().length, 0);
  mock.timers.tick(199);
  assert.equal(sources.length, 1);
  mock.timers.tick(1301);
  assert.equal(sources.length, 2);
  assert.equal(last().url, `${base}/stream?after=c9`);
  assert.ok(states.every((state) => state.kind !== 'lost'));
});

test('a hidden page keeps its connection for five seconds, then gives it back, and resumes at the cursor', () => {
  start();
  last().open();
  last().message('<li>1</li>', 'c1');
  hide(true);
  mock.timers.tick(4999);
  assert.equal(open().length, 1);
  mock.timers.tick(1);
  assert.deepEqual([open().length, kind()], [0, 'resting']);
  hide(false);
  assert.deepEqual([open().length, last().url, kind()], [1, `${base}/stream?after=c1`, 'connecting']);
});

test('a page that is shown again within five seconds keeps its connection', () => {
  start();
  hide(true);
  mock.timers.tick(3000);
  hide(false);
  mock.timers.tick(10_000);
  assert.deepEqual([sources.length, open().length], [1, 1]);
});

test('a page that starts hidden opens nothing before it is shown', () => {
  document.hidden = true;
  start();
  assert.deepEqual([sources.length, kind()], [0, 'resting']);
  hide(false);
  assert.equal(sources.length, 1);
});

test('other filters start another stream and end the one before', () => {
  const stream = start('c1', { user: 'Ann' });
  stream.restart('c5', { user: 'Bob' });
  assert.deepEqual([open().length, last().url], [1, `${base}/stream?user=Bob&after=c5`]);
});

test('other filters on a hidden page wait until it is shown', () => {
  const stream = start('c1');
  listeners.get('pagehide')();
  stream.restart('c5', { user: 'Bob' });
  assert.equal(open().length, 0);
  hide(false);
  assert.equal(last().url, `${base}/stream?user=Bob&after=c5`);
});

test('a stream that lost its server says what the server answers', async () => {
  start();
  last().open();
  answer = { ok: false, status: 502 };
  last().fail(0);
  await new Promise(setImmediate);
  assert.match(states.at(-1).why, /502/);
});

/** Lets a second pass, and what waits for answers continue. */
async function second() {
  now += 1000;
  mock.timers.tick(1000);
  await new Promise(setImmediate);
}

const heartbeat = (elapsed) => last().control('heartbeat', `{"elapsed_ms":${elapsed}}`, '');

async function seconds(count) {
  for (let n = 0; n < count; n += 1) await second();
}

test('a stream of which nothing arrives although the server answers is buffered by a proxy', async () => {
  for (const opens of [false, true]) {
    buffering = [];
    start();
    if (opens) last().open();
    await seconds(7);
    assert.deepEqual(buffering, [], 'too early');
    await seconds(2);
    assert.deepEqual(buffering, [true]);
    // The head, if it was held back too, comes with the first clump.
    await seconds(6);
    if (!opens) last().open();
    for (const elapsed of [5, 10, 15, 15.1, 15.2, 15.3]) heartbeat(elapsed * 1000);
    assert.deepEqual(buffering, [true]);
  }
});

test('a stream that says something in time, or whose server does not answer, is not buffered', async () => {
  start();
  last().open();
  await seconds(6);
  last().control('status', '{"broker":"up"}', 'c1');
  await seconds(20);
  assert.deepEqual(buffering, []);
  answer = { ok: false, status: 502 };
  start();
  await seconds(20);
  assert.deepEqual(buffering, []);
});

test('heartbeats in clumps are a proxy, and on time they are none', async () => {
  start();
  last().open();
  last().control('status', '{"broker":"up"}', 'c1');
  for (let clump = 1; clump <= 3; clump += 1) {
    assert.deepEqual(buffering, []);
    await seconds(10);
    for (const part of [5, 10]) heartbeat((clump - 1) * 10_000 + part * 1000);
  }
  assert.deepEqual(buffering, [true]);
  // EventSource connects again, through a proxy that was told.
  last().fail(0);
  last().open();
  for (let n = 1; n <= 5; n += 1) {
    await seconds(5);
    heartbeat(n * 5000);
  }
  assert.deepEqual(buffering, [true, false]);
});
