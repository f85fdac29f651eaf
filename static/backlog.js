// What has arrived and is not on the page yet: the newest in full, the older ones as a count with the cursors around
// them, so that the page can say what it does not show and where to find it.

const MOST_KEPT = 500;

export class Backlog {
  #entries = [];
  #skipped = null;

  /** An event: `{ html, from, to }`, with the cursors before and after it; `why` an older one has to go for it. */
  add(event, why) {
    this.#entries.push(event);
    if (this.#entries.length > MOST_KEPT) this.#skip(1, why);
  }

  /** A gap that the server told of: `{ count, from, to, why, gone, counted }`, `count` null where nobody knows; `counted`: of
   * events that this page would have shown. */
  addGap(gap) {
    this.#entries.push({ gap });
  }

  get length() {
    return this.#entries.length;
  }

  /** How many events wait, the skipped ones included. */
  get count() {
    const of = ({ html, gap }) => (html ? 1 : gap.counted ? gap.count : 0);
    return this.#entries.reduce((sum, entry) => sum + of(entry), this.#skipped?.count ?? 0);
  }

  /** The next `some`, oldest first, and before them all but the newest `most` as one gap. */
  take(some, most, why) {
    if (this.#entries.length > most) this.#skip(this.#entries.length - most, why);
    const gap = this.#skipped ? [{ gap: this.#skipped }] : [];
    this.#skipped = null;
    return [...gap, ...this.#entries.splice(0, some)];
  }

  clear() {
    this.#entries = [];
    this.#skipped = null;
  }

  #skip(many, why) {
    for (const entry of this.#entries.splice(0, many)) {
      const { count, from, to } = entry.gap ?? { count: 1, from: entry.from, to: entry.to };
      const before = this.#skipped ?? { count: 0, from, why };
      this.#skipped = { ...before, count: count === null || before.count === null ? null : before.count + count, to };
    }
  }
}
