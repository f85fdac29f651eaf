// The connection to /stream: at most one EventSource, none while the page is hidden, resumed at the cursor.
//
// EventSource reconnects by itself after a broken connection (and sends Last-Event-ID), but gives up after any answer other
// than 200. Then this class retries, with growing delays.

import { at } from './words.js';

const RETRY = 3000; // the server's `retry:`
const LONGEST_WAIT = 30_000;
const HIDDEN_FOR = 5000;
// Heartbeats are comments, which scripts do not see: after this long without an event, ask the server whether it still answers.
const QUIET_FOR = 30_000;

export class Stream {
  #source = null;
  #timer = 0;
  #hidden = 0;
  state = {};
  #tries = 0;
  #heard = Date.now();
  #ticked = Date.now();

  /**
   * `on.event(html, from, to)`, `on.control(name, message, from, to)`, and `on.state(state)` with a state of
   * `{ kind: 'connecting' | 'live' | 'lost' | 'resting', since, retryAt, why }`.
   */
  constructor(cursor, filters, on) {
    this.cursor = cursor;
    this.filters = filters;
    this.on = on;
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
    source.onopen = () => {
      this.#heard = Date.now();
      this.#say({ kind: 'live', since: Date.now() });
    };
    source.onmessage = (event) => this.on.event(event.data, ...this.#advance(event));
    for (const name of ['gap', 'dropped', 'skipped', 'status', 'rejected']) {
      source.addEventListener(name, (event) => this.on.control(name, read(event.data), ...this.#advance(event)));
    }
    source.addEventListener('position', (event) => this.#advance(event));
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
      }
      this.#ask();
    };
  }

  /** Notes an event's cursor; returns the cursors before and after the event. */
  #advance(event) {
    this.#heard = Date.now();
    this.#tries = 0;
    const from = this.cursor;
    this.cursor = event.lastEventId || from;
    return [from, this.cursor];
  }

  #close() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
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
    let why = null;
    try {
      const answer = await fetch(at('/livez'), { cache: 'no-store', signal: AbortSignal.timeout(5000) });
      if (!answer.ok) why = `the server answered ${answer.status}`;
    } catch {
      why = navigator.onLine ? 'the server is unreachable' : 'this computer is offline';
    }
    if (why && this.state === state) {
      if (state.kind === 'lost') {
        this.#say({ ...state, why });
      } else if (state.kind === 'live') {
        this.#lost(why, RETRY);
        this.#open();
      }
    }
  }

  #watch() {
    const now = Date.now();
    // If a 1 s timer fires 30 s late, the computer was asleep, and its connections are dead.
    const slept = now - this.#ticked > 30_000 && !document.hidden;
    this.#ticked = now;
    if (this.state.kind === 'live') {
      if (slept) this.#open();
      else if (now - this.#heard > QUIET_FOR) {
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

function read(json) {
  try {
    return JSON.parse(json) ?? {};
  } catch {
    return {};
  }
}
