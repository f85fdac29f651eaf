// The pure parts of charts.

import assert from 'node:assert/strict';
import { test } from 'node:test';

const { addressOf, columnAt, linesOf, rangeOf } = await import('../../static/chart.js');

test('a place is in a column', () => {
  assert.deepEqual(
    [-0.1, 0, 0.24, 0.25, 0.99, 1, 2].map((place) => columnAt(place, 4)),
    [0, 0, 0, 1, 3, 3, 3],
  );
});

test('a range is the same in both directions', () => {
  const columns = [0, 1, 2].map((n) => ({ from: n * 10, to: n * 10 + 10 }));
  assert.deepEqual(rangeOf(columns, 0, 2), { from: 0, to: 30 });
  assert.deepEqual(rangeOf(columns, 2, 0), { from: 0, to: 30 });
  assert.deepEqual(rangeOf(columns, 1, 1), { from: 10, to: 20 });
});

test('the address keeps the filters and replaces the time', () => {
  const range = { from: 1_795_435_200_000, to: 1_795_435_260_000 };
  const time = 'since=2026-11-23T12%3A00%3A00Z&until=2026-11-23T12%3A01%3A00Z';
  assert.equal(addressOf('/history?', range), `/history?${time}`);
  assert.equal(addressOf('/base/history?action=a%26b&since=x', range), `/base/history?action=a%26b&${time}`);
});

test('a tooltip names the five most frequent', () => {
  const names = ['a', 'b', 'c', 'd', 'e', 'f', 'g'];
  const colours = names.map((_, index) => `c${index}`);
  const lines = linesOf(names, colours, [1, 0, 7, 3, 3, 2, 5]);
  assert.deepEqual(
    lines.map(({ name, colour, value }) => [name, colour, value]),
    [
      ['c', 'c2', 7],
      ['g', 'c6', 5],
      ['d', 'c3', 3],
      ['e', 'c4', 3],
      ['f', 'c5', 2],
    ],
  );
});
