// The connection to /stream: at most one EventSource, none while the page is hidden, resumed at the cursor.
//
// EventSource reconnects by itself after a broken connection (and sends Last-Event-ID), but gives up after any answer other
// than 200. Then this class retries, with growing delays.

import { Buffering } from './buffering.js';
import { at } from './words.js';

const RETRY = 3000; // the server's `retry:`
const LONGEST_WAIT = 30_000;
const HIDDEN_FOR = 5000;
// After this long without an event, ask the server whether it still answers: a heartbeat comes every 5 s.
const QUIET_FOR = 12_000;
// The server sends the first event at once. If it has not arrived after this long, ask whether the server answers.
const SILENT_FOR = 5000;
// If the server answers, but the first event has still not arrived after this long, a proxy is holding it back.
const STILL_SILENT_FOR = 2000;

export class Stream {
  #source = null;
  #timer = 0;
  #hidden = 0;
  state = {};
  #tries = 0;
  #heard = Date.now();
  #ticked = Date.now();
  // When the stream of which nothing has arrived was requested, or its head arrived; 0 if there is none.
  #requested = 0;
  #suspecting = false;

  /**
   * `on.event(html, from, to)`, `on.control(name, message, from, to)`, `on.position(from, to)`, `on.state(state)` with a state of
   * `{ kind: 'connecting' | 'live' | 'lost' | 'resting', since, retryAt, why }`, and `on.buffering(buffers)` when a proxy
   * begins or ceases to buffer the stream.
   */
  constructor(cursor, filters, on) {
    this.cursor = cursor;
    this.filters = filters;
    this.on = on;
    this.buffering = new Buffering(Date.now(), (buffers) => on.buffering?.(buffers));
    this.#say({ kind: 'connecting', since: Date.now() });
    document.addEventListener('visibilitychange', () => (document.hidden ? this.#restSoon() : this.#wake()));
    addEventListener('pagehide', () => this.#rest());
    addEventListener('pageshow', () => this.#wake());
    addEventListener('online', () => this.#ask());
    addEventListener('offline', () => this.#ask());
    setInterval(() => this.#watch(), 1000);
    if (document.hidden) this.#rest();
    else this.#open();
  }

  /** Restarts at another cursor, with other filters. */
  restart(cursor, filters) {
    this.cursor = cursor;
    this.filters = filters;
    if (this.state.kind !== 'resting') this.#open();
  }

  #open() {
    this.#close();
    if (this.state.kind === 'resting') this.#say({ kind: 'connecting', since: Date.now() });
    const query = new URLSearchParams(this.filters);
    if (this.cursor) query.set('after', this.cursor);
    const source = new EventSource(at(`/stream?${query}`));
    this.#source = source;
    this.#request(Date.now());
    source.onopen = () => {
      this.#heard = Date.now();
      // Otherwise the time counts from the request.
      if (!this.#requested) this.#request(this.#heard);
      this.#say({ kind: 'live', since: Date.now() });
    };
    source.onmessage = (event) => this.on.event(event.data, ...this.#advance(event));
    for (const name of ['gap', 'dropped', 'skipped', 'status', 'rejected']) {
      source.addEventListener(name, (event) => this.on.control(name, read(event.data), ...this.#advance(event)));
    }
    source.addEventListener('position', (event) => this.on.position(...this.#advance(event)));
    source.addEventListener('heartbeat', (event) => {
      this.on.position(...this.#advance(event));
      this.buffering.heartbeat(read(event.data).elapsed_ms, this.#heard);
    });
    source.addEventListener('bye', (event) => {
      this.#advance(event);
      // All pages get `bye` at the same moment, so each waits a random time. The server closes the connection, which must not
      // be reported as a loss.
      this.#close();
      this.#timer = setTimeout(() => this.#open(), 200 + Math.random() * 1300);
    });
    source.onerror = () => {
      if (source !== this.#source) return;
      if (source.readyState === EventSource.CLOSED) {
        const wait = Math.min(LONGEST_WAIT, 1000 * 2 ** this.#tries++) * (0.5 + Math.random() / 2);
        this.#close();
        this.#timer = setTimeout(() => this.#open(), wait);
        this.#lost('the server refused the stream', wait);
      } else {
        this.#lost('the connection broke', RETRY);
        // When EventSource tries again is not known.
        this.#requested = 0;
      }
      this.#ask();
    };
  }

  /** Notes an event's cursor; returns the cursors before and after the event. */
  #advance(event) {
    this.#heard = Date.now();
    this.buffering.received(this.#heard);
    this.#requested = 0;
    this.#tries = 0;
    const from = this.cursor;
    this.cursor = event.lastEventId || from;
    return [from, this.cursor];
  }

  #close() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
    this.#requested = 0;
  }

  /** Notes that there is a stream of which nothing has arrived. */
  #request(now) {
    this.#requested = now;
    this.buffering.opened(now);
  }

  #say(state) {
    this.state = state;
    this.on.state(state);
  }

  #lost(why, wait) {
    const since = this.state.kind === 'lost' ? this.state.since : Date.now();
    this.#say({ kind: 'lost', since, why, retryAt: wait && Date.now() + wait });
  }

  /** Finds out why the stream was lost, or whether the server of a quiet stream still answers. */
  async #ask() {
    const state = this.state;
    const why = await fault();
    if (why && this.state === state) {
      if (state.kind === 'lost') {
        this.#say({ ...state, why });
      } else if (state.kind === 'live') {
        this.#lost(why, RETRY);
        this.#open();
      }
    }
  }

  /** Finds out whether a proxy holds back a stream of which nothing has arrived. */
  async #suspect() {
    const requested = this.#requested;
    this.#suspecting = true;
    // The browser sends this after the request for the stream.
    const answers = (await fault()) === null;
    if (answers) await new Promise((done) => setTimeout(done, STILL_SILENT_FOR));
    this.#suspecting = false;
    if (requested !== this.#requested) return;
    if (answers) this.buffering.silent();
    else this.#requested = Date.now();
  }

  #watch() {
    const now = Date.now();
    // The time in which the page stood still does not count.
    if (this.buffering.tick(now) && this.#requested) this.#request(now);
    const silent = this.#requested && now - this.#requested > SILENT_FOR;
    if (silent && !this.#suspecting && !this.buffering.buffers) this.#suspect();
    // If a 1 s timer fires 30 s late, the computer was asleep, and its connections are dead.
    const slept = now - this.#ticked > 30_000 && !document.hidden;
    this.#ticked = now;
    if (slept && (this.state.kind === 'live' || this.state.kind === 'connecting')) {
      this.#open();
    } else if (this.state.kind === 'live') {
      if (now - this.#heard > QUIET_FOR) {
        this.#heard = now;
        this.#ask();
      }
    } else if (this.state.kind === 'lost') {
      this.on.state(this.state); // counts down
    }
  }

  /** A browser opens six connections per host, so hidden tabs close theirs. */
  #restSoon() {
    clearTimeout(this.#hidden);
    this.#hidden = setTimeout(() => this.#rest(), HIDDEN_FOR);
  }

  #rest() {
    clearTimeout(this.#hidden);
    this.#close();
    if (this.state.kind !== 'resting') this.#say({ kind: 'resting', since: Date.now() });
  }

  #wake() {
    clearTimeout(this.#hidden);
    if (this.state.kind === 'resting' && !document.hidden) this.#open();
  }
}

/** Why the server does not answer, or null if it does. */
async function fault() {
  try {
    const answer = await fetch(at('/livez'), { cache: 'no-store', signal: AbortSignal.timeout(5000) });
    return answer.ok ? null : `the server answered ${answer.status}`;
  } catch {
    return navigator.onLine ? 'the server is unreachable' : 'this computer is offline';
  }
}

function read(json) {
  try {
    return JSON.parse(json) ?? {};
  } catch {
    return {};
  }
}
