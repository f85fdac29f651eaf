// The account of the live page: what became of every record that the stream passed.

import { number } from './words.js';

const offsets = (cursor) => new Map(cursor.split('.').map((place) => place.split('-').map(Number)));

/** The number of offsets between two cursors, without partitions whose place is unknown (it is no safe integer then). */
export function distance(from, to) {
  if (!from || !to || from === to) return 0;
  const before = offsets(from);
  let sum = 0;
  for (const [partition, next] of offsets(to)) {
    // A partition that a cursor does not name was added later.
    const passed = next - (before.get(partition) ?? 0);
    if (passed > 0 && Number.isSafeInteger(next)) sum += passed;
  }
  return sum;
}

export class Account {
  #arrived = 0;
  #matched = 0;
  #shown = 0;
  #lost = 0;
  #latest = 0;

  /** Starts at a cursor, which may not be known yet. */
  constructor(cursor) {
    this.cursor = cursor;
  }

  /** Counts the records up to a cursor, of which `matched` match the filters. */
  advance(cursor, matched = 0) {
    if (!cursor) return;
    const passed = distance(this.cursor, cursor);
    this.#arrived += passed;
    this.#matched += matched;
    if (passed) this.#latest = Date.now();
    this.cursor = cursor;
  }

  /** Counts a gap up to a cursor. Without a number it is not known how many records it has, and whether they are of this
   * topic: the account goes on after it. */
  lose(count, cursor) {
    if (count == null) this.cursor = cursor;
    this.advance(cursor);
    this.#lost += count ?? 0;
  }

  show(count) {
    this.#shown += count;
  }

  /** The sum in words, while `waiting` events wait to be shown; `narrowed` if there are filters. */
  words(waiting, narrowed) {
    // Where the stream started is unknown if the page was made before the server knew it.
    const arrived = Math.max(this.#arrived, this.#matched + this.#lost);
    const rest = arrived - this.#matched - this.#lost;
    const parts = [
      [this.#shown, 'shown'],
      [waiting, 'waiting'],
      // Offsets have no record where a transaction ended, or where compaction removed one.
      [rest, narrowed ? 'filtered' : 'offsets without a record'],
      [this.#matched - this.#shown - waiting, 'left out'],
      [this.#lost, 'lost'],
    ];
    const sum = parts.filter(([count], index) => count || !index).map(([count, what]) => `${number(count)} ${what}`);
    const ago = this.#latest ? ` · latest ${((Date.now() - this.#latest) / 1000).toFixed(1)} s ago` : '';
    return `${number(arrived)} arrived = ${sum.join(' + ')}${this.#lost ? '' : ' · 0 lost'}${ago}`;
  }
}
