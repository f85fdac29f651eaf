// Notices a proxy that buffers the stream: the heartbeats, which the server sends one by one, then arrive in clumps.
//
// A heartbeat says how long ago the server opened the stream. Arrival minus that time is a heartbeat's delay, plus the
// difference of two clocks, which is the same for all heartbeats of a connection: only differences of delays count.

// A heartbeat is late if it took so much longer than the fastest one of its connection. A clump ends as long a silence.
const LATE = 2000;
// So many late clumps within this time are a proxy; a lost packet or a change of the network makes one.
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
  #heard = 0;
  #fastest = Infinity;
  #heartbeats = 0;
  // The clumps of the last minute: when each began, and the longest delay in it.
  #clumps = [];

  constructor(now, changed) {
    this.#ticked = now;
    this.changed = changed;
  }

  /** A new connection: its heartbeats have nothing to do with those before. */
  opened(now) {
    this.#heard = now;
    this.#forget();
  }

  /** Notes that a message of any kind arrived. */
  heard(now) {
    if (now - this.#heard >= LATE) this.#clumps.push({ start: now, delay: -Infinity });
    this.#heard = now;
  }

  /** Notes a heartbeat, which the server sent when the stream was open for `elapsed`. */
  heartbeat(elapsed, now) {
    this.heard(now);
    if (this.#stood(now) || !Number.isFinite(elapsed)) return this.#forget();
    const delay = now - elapsed;
    this.#heartbeats += 1;
    this.#fastest = Math.min(this.#fastest, delay);
    // Without a silence before it, a late heartbeat was behind many bytes on a slow line.
    const clump = this.#clumps.at(-1);
    if (clump && now - clump.start <= TOGETHER) clump.delay = Math.max(clump.delay, delay);
    this.#clumps = this.#clumps.filter(({ start }) => start > now - WITHIN);
    const late = this.#clumps.filter((clump) => clump.delay > this.#fastest + LATE).length;
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
    if (stood) this.#forget();
    return stood;
  }

  #stood(now) {
    return now - this.#ticked > LATE || now < this.#ticked;
  }

  #forget() {
    this.#fastest = Infinity;
    this.#heartbeats = 0;
    this.#clumps = [];
  }

  #say(buffers) {
    if (this.buffers === buffers) return;
    this.buffers = buffers;
    this.changed(buffers);
  }
}
