// static/time.js: times in the reader's zone, and how long ago.

import assert from 'node:assert/strict';
import { test } from 'node:test';

process.env.TZ = 'Europe/Berlin';
const { clockTime, duration, exactTime } = await import('../../static/time.js');

const s = 1000;
const min = 60 * s;
const h = 60 * min;
const d = 24 * h;

test('a duration is given in its largest whole unit', () => {
  const expected = [
    [0, '0 s'],
    [999, '0 s'],
    [59.9 * s, '59 s'],
    [60 * s, '1 min'],
    [59.9 * min, '59 min'],
    [60 * min, '1 h'],
    [23.9 * h, '23 h'],
    [24 * h, '1 d'],
    [40 * d, '40 d'],
    [1234 * d, '1,234 d'],
  ];
  for (const [ms, text] of expected) assert.equal(duration(ms), text, `${ms} ms`);
});

test('a duration is never negative', () => assert.equal(duration(-5 * s), '0 s'));

test('a clock time has 24 hours, in the zone of the reader', () => {
  assert.equal(clockTime(new Date('2026-01-02T23:04:05Z')), '00:04:05');
  assert.equal(clockTime(new Date('2026-07-02T13:04:05Z')), '15:04:05');
});

test('an exact time has the date as ISO 8601 writes it, and milliseconds', () => {
  assert.match(exactTime(new Date('2026-01-02T23:04:05.007Z')), /^2026-01-03 00:04:05\.007 \S+$/);
});
