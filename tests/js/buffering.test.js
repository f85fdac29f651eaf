// static/buffering.js: which arrivals of heartbeats a proxy that buffers explains, and which have other causes.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Buffering } from '../../static/buffering.js';

/** Plays heartbeats that the server sends at `sent` and that arrive at `arrives(sent)`, both in seconds of the
 * connection; returns at which second of it what was said. The clocks differ by an hour. */
function play(sent, arrives, { stalls = [], between = [] } = {}) {
  const said = [];
  const clock = (second) => 3_600_000 + second * 1000;
  let now = 0;
  const buffering = new Buffering(clock(0), (buffers) => said.push([Math.round(now), buffers]));
  buffering.opened(clock(0));
  const stalled = (second) => stalls.some(([from, to]) => second > from && second < to);
  // What a page that stands still would have done happens at the end of that time.
  const happens = (second) => stalls.find(([from, to]) => second > from && second < to)?.[1] ?? second;
  const all = [
    ...sent.map((second) => [happens(arrives(second)), () => buffering.heartbeat(second * 1000, clock(now))]),
    ...between.map((second) => [second, () => buffering.heard(clock(second))]),
  ];
  const end = Math.max(...all.map(([second]) => second));
  for (let second = 1; second <= end; second += 1) {
    if (!stalled(second)) all.push([second, () => buffering.tick(clock(second))]);
  }
  all.sort(([a], [b]) => a - b);
  for (const [second, act] of all) {
    now = second;
    act();
  }
  return { said, buffering };
}

/** A heartbeat every 4.7 s. */
const heartbeats = (seconds) => Array.from({ length: Math.floor(seconds / 4.7) }, (_, n) => (n + 1) * 4.7);

test('heartbeats that arrive one by one are no sign of a proxy', () => {
  assert.deepEqual(play(heartbeats(600), (sent) => sent + 0.1).said, []);
});

// Longer intervals are a silence first.
test('clumps are a proxy, whatever their interval', () => {
  for (const interval of [4, 7, 15, 25]) {
    const { said } = play(heartbeats(600), (sent) => Math.ceil(sent / interval) * interval);
    assert.equal(said.length, 1, `${interval} s: ${JSON.stringify(said)}`);
    const [[second, buffers]] = said;
    assert.ok(buffers && second <= Math.max(60, 4 * interval), `${interval} s: after ${second} s`);
  }
});

test('a slow network delays all heartbeats alike, or each by a little', () => {
  const slow = play(heartbeats(600), (sent) => sent + 3 + (sent % 1.5)).said;
  assert.deepEqual(slow, []);
});

test('two interruptions of the network within a minute are not yet a proxy', () => {
  const arrives = (sent) => {
    for (const [from, to] of [
      [20, 32],
      [50, 62],
      [120, 140],
    ]) {
      if (sent > from && sent < to) return to;
    }
    return sent;
  };
  assert.deepEqual(play(heartbeats(600), arrives).said, []);
});

test('heartbeats behind many rows on a slow line are not a clump', () => {
  // The line falls behind for ten seconds in each twenty, and a row arrives twice a second.
  const arrives = (sent) => sent + (Math.floor(sent / 10) % 2) * 4;
  const between = Array.from({ length: 1200 }, (_, n) => n / 2);
  assert.deepEqual(play(heartbeats(600), arrives, { between }).said, []);
});

test('a page that stood still got its heartbeats late by itself', () => {
  const stalls = [10, 30, 50, 70, 90].map((second) => [second, second + 12]);
  assert.deepEqual(play(heartbeats(200), (sent) => sent, { stalls }).said, []);
});

test('a clock that is set back does not make the heartbeats before it late', () => {
  const { said } = play(heartbeats(300), (sent) => sent);
  const buffering = new Buffering(0, (buffers) => said.push(buffers));
  buffering.opened(0);
  for (let second = 1; second < 300; second += 1) {
    const now = second * 1000 - (second > 100 ? 60_000 : 0);
    if (second % 5 === 0) buffering.heartbeat(second * 1000, now);
    buffering.tick(now);
  }
  assert.deepEqual(said, []);
});

test('silence is a proxy until five heartbeats of a connection are on time', () => {
  const said = [];
  const buffering = new Buffering(0, (buffers) => said.push(buffers));
  buffering.opened(0);
  buffering.silent();
  buffering.silent();
  assert.deepEqual(said, [true]);
  // What was held back arrives at once.
  for (let n = 1; n <= 12; n += 1) buffering.heartbeat(n * 5000, 60_000);
  assert.deepEqual(said, [true]);
  buffering.opened(70_000);
  for (let second = 1; second <= 25; second += 1) {
    buffering.tick(70_000 + second * 1000);
    if (second % 5 === 0) {
      assert.deepEqual(said, [true]);
      buffering.heartbeat(second * 1000, 70_000 + second * 1000);
    }
  }
  assert.deepEqual(said, [true, false]);
});
