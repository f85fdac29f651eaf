// The pure parts of the histogram.

import assert from 'node:assert/strict';
import { test } from 'node:test';

const { countsOf, pathsOf, searchedOf } = await import('../../static/histogram.js');

const columns = [5, 0, 3].map((all, n) => ({ from: n * 10, to: n * 10 + 10, all }));

test('matches are counted in the column of their time', () => {
  assert.deepEqual(countsOf(columns, [-1, 0, 9, 10, 29, 30]), [
    { matches: 2, others: 3 },
    { matches: 1, others: 0 },
    { matches: 1, others: 2 },
  ]);
  assert.deepEqual(countsOf([], [1]), []);
});

test('the others are drawn on top of the matches', () => {
  const counts = [
    { matches: 2, others: 3 },
    { matches: 0, others: 0 },
    { matches: 0, others: 5 },
  ];
  assert.deepEqual(pathsOf([{ matches: 1, others: 99 }], 100, 100), ['M0 100.0h10v-3h-10z', 'M0 97.0h10v-97h-10z']);
  assert.deepEqual(pathsOf(counts, 10, 100), ['M0 100.0h10v-20h-10z', 'M0 80.0h10v-30h-10zM20 100.0h10v-50h-10z']);
});

test('what was searched ends at the newest or starts at the oldest column', () => {
  assert.deepEqual(searchedOf(columns, 4, 15, true), { left: 37.5, width: 37.5 });
  assert.deepEqual(searchedOf(columns, 4, 15, false), { left: 0, width: 37.5 });
  assert.deepEqual(searchedOf(columns, 4, -Infinity, true), { left: 0, width: 75 });
  assert.equal(searchedOf(columns, 4, 30, true), null);
});
