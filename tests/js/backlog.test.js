// static/backlog.js: what has arrived and is not on the page yet.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Backlog } from '../../static/backlog.js';

const KEPT = 500;

const event = (n) => ({ html: `<li>${n}</li>`, from: `c${n}`, to: `c${n + 1}` });

function filled(count) {
  const backlog = new Backlog();
  for (let n = 0; n < count; n += 1) backlog.add(event(n), 'too many');
  return backlog;
}

test('events are taken in the order in which they came', () => {
  const backlog = filled(3);
  assert.deepEqual(backlog.take(2, KEPT, 'why'), [event(0), event(1)]);
  assert.deepEqual(backlog.take(2, KEPT, 'why'), [event(2)]);
  assert.deepEqual([backlog.length, backlog.count], [0, 0]);
});

test('beyond 500 the oldest become a gap with their number and the cursors around them', () => {
  const backlog = filled(KEPT + 7);
  assert.deepEqual([backlog.length, backlog.count], [KEPT, KEPT + 7]);
  const [first, second] = backlog.take(1, KEPT, 'why');
  assert.deepEqual(first, { gap: { count: 7, matching: 7, from: 'c0', to: 'c7', why: 'too many' } });
  assert.deepEqual(second, event(7));
});

test('a gap is given once', () => {
  const backlog = filled(KEPT + 1);
  assert.equal(backlog.take(1, KEPT, 'why').length, 2);
  assert.deepEqual(backlog.take(1, KEPT, 'why'), [event(2)]);
});

test('whoever takes only the newest gets the others as a gap', () => {
  const [gap, ...events] = filled(10).take(10, 4, 'the page was hidden');
  assert.deepEqual(gap, { gap: { count: 6, matching: 6, from: 'c0', to: 'c6', why: 'the page was hidden' } });
  assert.deepEqual(events, [6, 7, 8, 9].map(event));
});

test('no event is lost or doubled, however much is taken at a time', () => {
  const backlog = filled(1234);
  const numbers = [];
  let skipped = 0;
  while (backlog.length > 0) {
    for (const entry of backlog.take(37, 300, 'why')) {
      if (entry.gap) skipped += entry.gap.count;
      else numbers.push(Number(entry.from.slice(1)));
    }
  }
  assert.equal(skipped, 1234 - 300);
  assert.deepEqual(
    numbers,
    Array.from({ length: 300 }, (_, n) => n + 934),
  );
});

test("a gap of the server's counts if it is of events that the page would have shown", () => {
  const backlog = filled(2);
  backlog.addGap({ count: 40, from: 'c2', to: 'c42', why: 'expired', counted: true });
  assert.equal(backlog.count, 42);
  backlog.addGap({ count: 5, from: 'c42', to: 'c47', why: 'expired', counted: false });
  assert.equal(backlog.count, 42);
});

test('a gap of unknown size among the skipped makes their number unknown', () => {
  const backlog = new Backlog();
  backlog.add(event(0), 'why');
  backlog.addGap({ count: null, from: 'c1', to: 'c9', why: 'expired' });
  backlog.add(event(9), 'why');
  const [gap, last] = backlog.take(5, 1, 'hidden');
  assert.deepEqual(gap, { gap: { count: null, matching: 1, from: 'c0', to: 'c9', why: 'hidden' } });
  assert.deepEqual(last, event(9));
});

test('nothing waits after clear', () => {
  const backlog = filled(KEPT + 3);
  backlog.clear();
  assert.deepEqual([backlog.length, backlog.count, backlog.take(9, 9, 'why')], [0, 0, []]);
});
