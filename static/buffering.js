// Notices a proxy that buffers the stream: the heartbeats, which the server sends one by one, then arrive in clumps.
//
// A heartbeat says how long ago the server opened the stream. Arrival minus that time is a heartbeat's delay, plus the
// difference of two clocks, which is the same for all heartbeats of a connection: only differences of delays count.

// A heartbeat is late if it took so much longer than the fastest one within WITHIN. A clump ends as long a silence.
const LATE = 2000;
// So many late clumps within this time, with heartbeats on time between them, are a proxy. A lost packet makes one, and so
// does a change of the network after which all heartbeats take longer.
const CLUMPS = 3;
const WITHIN = 60_000;
// Heartbeats that belong to one clump arrive within this time.
const TOGETHER = 1000;
// So many heartbeats of a connection, none of them late, show that no proxy buffers.
const ON_TIME = 5;

/** `changed(buffers)` is called when it becomes true or false. All times are of one clock, in milliseconds. */
export class Buffering {
  buffers = false;
  #ticked;
  #received = 0;
  // When the latest clump began.
  #clump = -Infinity;
  #heartbeats = 0;
  // Those of the last minute: when each arrived, its delay, and whether it belongs to a clump.
  #latest = [];

  constructor(now, changed) {
    this.#ticked = now;
    this.changed = changed;
  }

  /** A new connection: its heartbeats have nothing to do with those before. */
  opened(now) {
    this.#received = now;
    this.#clear();
  }

  /** Notes that a message of any kind arrived. */
  received(now) {
    if (now - this.#received >= LATE) this.#clump = now;
    this.#received = now;
  }

  /** Notes a heartbeat, which the server sent when the stream was open for `elapsed`. */
  heartbeat(elapsed, now) {
    this.received(now);
    if (this.#stood(now) || !Number.isFinite(elapsed)) return this.#clear();
    this.#heartbeats += 1;
    // Without a silence before it, a late heartbeat was behind many bytes on a slow line.
    this.#latest.push({ at: now, delay: now - elapsed, clumped: now - this.#clump <= TOGETHER });
    this.#latest = this.#latest.filter(({ at }) => at > now - WITHIN);
    const late = this.#lateClumps();
    if (late >= CLUMPS) this.#say(true);
    else if (late === 0 && this.#heartbeats >= ON_TIME) this.#say(false);
  }

  /** Nothing of a stream arrived, although the server answers. */
  silent() {
    this.#say(true);
  }

  /** To be called once a second. Returns whether the page stood still: then its times say nothing about the network. */
  tick(now) {
    const stood = this.#stood(now);
    this.#ticked = now;
    if (stood) this.#clear();
    return stood;
  }

  #lateClumps() {
    const fastest = this.#latest.reduce((least, { delay }) => Math.min(least, delay), Infinity);
    let [clumps, onTime] = [0, true];
    for (const { delay, clumped } of this.#latest) {
      const late = delay > fastest + LATE;
      if (late && clumped && onTime) clumps += 1;
      onTime = !late || (onTime && !clumped);
    }
    return clumps;
  }

  #stood(now) {
    return now - this.#ticked > LATE || now < this.#ticked;
  }

  #clear() {
    this.#clump = -Infinity;
    this.#heartbeats = 0;
    this.#latest = [];
  }

  #say(buffers) {
    if (this.buffers === buffers) return;
    this.buffers = buffers;
    this.changed(buffers);
  }
}
