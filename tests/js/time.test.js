// static/time.js: times in the reader's zone, and how long ago.

import assert from 'node:assert/strict';
import { test } from 'node:test';

process.env.TZ = 'Europe/Berlin';
const { clockTime, copiedTime, duration, exactTime } = await import('../../static/time.js');

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
  assert.equal(exactTime(new Date('2026-01-02T23:04:05.007Z')), '2026-01-03 00:04:05.007 UTC+1');
  assert.equal(exactTime(new Date('2026-07-02T23:04:05.007Z')), '2026-07-03 01:04:05.007 UTC+2');
});

test('a copied time is one of the zone, unless it names another', () => {
  const today = new Intl.DateTimeFormat('sv-SE').format(new Date());
  for (const [text, time] of [
    ['2026-11-25\u00a021:16:46', '2026-11-25T21:16:46'],
    ['2026-11-25 21:16:46\n12 s', '2026-11-25T21:16:46'],
    ['2026-11-25 21:16:46.120 UTC+1', '2026-11-25T21:16:46'],
    ['2026-11-25 21:16:46.120 UTC-5', '2026-11-26T03:16:46'],
    ['2026-11-25 21:16:46 UTC+5:45', '2026-11-25T16:31:46'],
    ['2026-11-25 21:16:46 UTC', '2026-11-25T22:16:46'],
    ['21:16:46', `${today}T21:16:46`],
    ['Ann', null],
  ])
    assert.equal(copiedTime(text), time, text);
});
