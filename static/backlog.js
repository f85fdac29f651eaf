// Events that have arrived and are not shown yet: the newest in full, older ones as a count with the cursors around them,
// so that the page can say what it leaves out and link to it.

const MOST_KEPT = 500;

export class Backlog {
  #entries = [];
  #skipped = null;

  /** Adds an event `{ html, from, to }` with the cursors before and after it; `why` explains the skip if it evicts an older one. */
  add(event, why) {
    this.#entries.push(event);
    if (this.#entries.length > MOST_KEPT) this.#skip(1, why);
  }

  /** Adds a gap that the server reported: `{ count, from, to, why, gone, counted }`. `count` is null if it is unknown;
   * `counted` if it counts only events that match this page's filters. */
  addGap(gap) {
    this.#entries.push({ gap });
  }

  get length() {
    return this.#entries.length;
  }

  /** The number of waiting events, skipped ones included. */
  get count() {
    return this.#entries.reduce((sum, entry) => sum + matching(entry), this.#skipped?.matching ?? 0);
  }

  /** Takes the next `some` entries, oldest first. Of more than `most`, the oldest come first as one gap. */
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
      const before = this.#skipped ?? { count: 0, matching: 0, from, why };
      this.#skipped = {
        ...before,
        count: count === null || before.count === null ? null : before.count + count,
        matching: before.matching + matching(entry),
        to,
      };
    }
  }
}

/** How many events of an entry match the filters: what the server lost is counted before filtering. */
const matching = ({ html, gap }) => (html ? 1 : gap.counted ? gap.count : 0);
