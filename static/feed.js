// The live feed: adds rows from the stream in batches, but not while the user points at the list or reads in it. Also pause,
// rate, filters, and the state of the connection in words.

import { Account, distance } from './account.js';
import { Backlog } from './backlog.js';
import { filtersOf, isNarrowed, isSuggested, suggested, typed } from './filters.js';
import { patch } from './patch.js';
import { Stream } from './stream.js';
import { startStrip } from './strip.js';
import { clockTime, duration, localTimes, showZone } from './time.js';
import { $, at, events, number, showBase, write } from './words.js';

const MOST_ROWS = 500;
// Rows added per animation frame; more would make the page stutter.
const ROWS_A_FRAME = 8;
// The server sends a page at most this many; the rest comes as a count.
const ROWS_A_SECOND = 50;
// The server renders at most this many.
const FIRST_ROWS = 50;
const SAY_EVERY = 5000;
// A position of the server that the page has not reached after this long is said. Without matches, a page learns its position
// with the heartbeats, every 5 s.
const BEHIND = 6000;
// Positions that are remembered for that: ten minutes of them.
const MOST_HEADS = 200;
// At more events a second, new rows are not highlighted: the browser would repaint all the time.
const MOST_ANNOUNCED = 10;
const SUGGESTIONS = 20;
// Names that are counted for them.
const MOST_COUNTED = 1000;

// Gaps whose records cannot be fetched any more, by the server's reason.
const GONE = {
  expired: 'Kafka no longer keeps them',
  'topic recreated': 'the topic was recreated',
  'malformed cursor': 'this page’s position in the stream was not valid',
  'unknown partition': 'the topic has fewer partitions than before',
};

// Gaps that the history can fill.
const LATER = { 'no leader': 'a partition had no leader' };

/**
 * Starts the feed. Its filters are those of the list (`data-filters`), else those of the address. Calls `on.arrived(html)`
 * for each event, shown or not, `on.skipped(count)` for events that the server left out, and `on.missed()` for lost ones.
 */
export function startFeed(list, on = {}) {
  const feed = new Feed(list, on);
  $('pause')?.addEventListener('click', () => feed.pause(!feed.paused));
  $('held').addEventListener('click', () => feed.show());
}

class Feed {
  paused = false;
  #backlog = new Backlog();
  #drawing = false;
  #skipping = 0;
  #seen = 0;
  #second = 0;
  #seconds = Array(60).fill(0);
  // How many of these seconds are known, up to now.
  #known = 0;
  #since = 'you opened this page';
  #unsaid = 0;
  #unsaidRejects = 0;
  #said = Date.now();
  #broker = null;
  #pointed = false;
  #left = 0;
  #absence = '';
  #title = document.title;
  #unreachable = '';
  #isLive = false;
  #account;
  // Positions of the server that the stream has not reached, and when they were known.
  #heads = [];
  #icon = $('icon')?.href;

  constructor(list, on) {
    this.list = list;
    this.on = on;
    this.#account = new Account(list.dataset.cursor);
    this.filters = filtersOf(list.dataset.filters ?? location.search);
    // A reload must not show the receipt again.
    if ($('filters') && `${this.filters}` !== `${new URLSearchParams(location.search)}`) {
      history.replaceState(null, '', address(this.filters) + location.hash);
    }
    this.stream = new Stream(list.dataset.cursor, this.filters, {
      event: (html, from, to) => this.#arrived({ html, from, to }),
      control: (name, message, _, to) => this.#control(name, message, to),
      position: (_, to) => this.#account.advance(to),
      state: (state) => this.#connection(state),
      buffering: (buffers) => this.#proxyState(buffers),
    });
    // Only a mouse stays over the list; a finger taps and leaves.
    list.addEventListener('pointerenter', (event) => (this.#pointed = event.pointerType === 'mouse'));
    list.addEventListener('pointerleave', () => (this.#pointed = false));
    for (const type of ['pointerleave', 'focusout', 'toggle']) {
      list.addEventListener(type, () => this.#drawSoon(), true);
    }
    addEventListener('scroll', () => this.#drawSoon(), { passive: true });
    if ($('rate')) this.#before(list.dataset.now);
    setInterval(() => this.#everySecond(), 1000);
    if ($('filters')) {
      this.suggestions = new Suggestions();
      startStrip(
        () => this.filters,
        (head) => this.#heads.length < MOST_HEADS && this.#heads.push({ head, at: Date.now() }),
      );
      this.#filter();
    }
  }

  pause(paused) {
    this.paused = paused;
    $('pause').textContent = paused ? 'Resume' : 'Pause';
    say(paused ? 'Paused' : `Resumed, ${events(this.#backlog.count)}`);
    this.#connection(this.stream.state);
    if (!paused) this.show();
  }

  /** Shows all waiting events at once. */
  show() {
    if (this.paused) this.pause(false);
    for (const open of this.list.querySelectorAll('.event > details[open]')) open.open = false;
    scrollTo({ top: 0 });
    this.#put(this.#backlog.take(MOST_ROWS, MOST_ROWS, this.#why()));
    this.#waiting();
    this.#sum();
  }

  #arrived(event) {
    this.#account.advance(event.to, 1);
    this.#seen += 1;
    this.#second += 1;
    this.on.arrived?.(event.html);
    this.#backlog.add(event, this.#why());
    this.#drawSoon();
  }

  /** Why an event that is left out now is not shown. */
  #why() {
    if (this.#absence) return `this tab was hidden for ${this.#absence}`;
    return this.paused || this.#held() ? `beyond this page's ${MOST_ROWS} rows` : 'too many to show';
  }

  #control(name, message, to) {
    if (name === 'dropped') this.#account.lose(message.count, to);
    else if (name === 'gap') this.#account.lose(message.missed, to);
    else this.#account.advance(to, name === 'skipped' ? message.count : 0);
    if (name === 'status') {
      this.#broker = message;
      this.#brokerState();
    } else if (name === 'rejected') {
      showRejected(message);
      this.#unsaidRejects = message.count;
    } else if (name === 'skipped') {
      this.#seen += message.count;
      this.#second += message.count;
      this.#skipping = performance.now();
      this.on.skipped?.(message.count);
      this.#gap({ ...message, why: this.#why(), counted: true });
    } else if (name === 'dropped') {
      this.#gap({
        count: message.count,
        from: message.from,
        to: message.to,
        why: 'this page was too slow',
        unfiltered: true,
      });
    } else {
      const { missed, requested, resumed, reason } = message;
      this.#gap({
        count: missed,
        from: requested,
        to: resumed,
        why: GONE[reason] ?? LATER[reason] ?? reason,
        unfiltered: true,
        gone: reason in GONE,
      });
    }
  }

  #gap(gap) {
    if (!gap.counted) this.on.missed?.();
    this.#backlog.addGap(gap);
    this.#drawSoon();
  }

  #drawSoon() {
    if (this.#drawing || !this.#backlog.length) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      this.#draw();
    });
  }

  #draw() {
    if (this.paused || this.#held()) return this.#waiting();
    this.#put(this.#backlog.take(ROWS_A_FRAME, MOST_ROWS, this.#why()));
    $('held').hidden = true;
    this.#tell();
    this.#drawSoon();
  }

  /** Whether the list must not move: the pointer or the keyboard focus is in it, a row is open, or the page is scrolled. */
  #held() {
    return (
      this.#pointed ||
      this.list.querySelector(':focus-visible, .event > details[open]') !== null ||
      this.list.getBoundingClientRect().top < 0
    );
  }

  #waiting() {
    const count = this.#backlog.count;
    $('held').hidden = this.paused || count === 0;
    $('held').textContent = `+${number(count)} new`;
    if (this.paused) {
      $('pause').textContent = count ? `Resume (+${number(count)} new)` : 'Resume';
      this.#connection(this.stream.state);
    }
    this.#tell();
  }

  /** Says in the tab's title how many events wait, and what is unreachable. */
  #tell() {
    const waiting =
      this.#backlog.count && (this.paused || !$('held').hidden) ? `(+${number(this.#backlog.count)}) ` : '';
    const title = `${this.#unreachable && `⚠ ${this.#unreachable} · `}${waiting}${this.#title}`;
    if (document.title !== title) document.title = title;
    const kind = this.#unreachable ? 'away' : waiting || this.paused ? 'waiting' : this.#isLive ? 'live' : '';
    const icon = kind ? at(`/static/favicon-${kind}.svg`) : this.#icon;
    if (this.#icon && $('icon').getAttribute('href') !== icon) $('icon').setAttribute('href', icon);
  }

  /** Adds entries to the list. They come oldest first; the list shows the newest first. */
  #put(entries) {
    if (!entries.length) return;
    const fragment = document.createElement('template');
    fragment.innerHTML = entries
      .map((entry) => entry.html ?? '<li class="skip"></li>')
      .reverse()
      .join('');
    const gaps = entries.filter((entry) => entry.gap).reverse();
    fragment.content.querySelectorAll('li.skip').forEach((row, n) => {
      this.#describe(row, gaps[n].gap);
    });
    const rows = [...fragment.content.children].filter((row) => !row.id || !$(row.id));
    if (Math.max(this.#second, this.#seconds.at(-1)) <= MOST_ANNOUNCED) {
      for (const row of rows) if (row.id) row.classList.add('new');
    }
    localTimes(rows, this.list);
    this.#account.show(entries.length - gaps.length);
    this.list.prepend(...rows);
    while (this.list.childElementCount > MOST_ROWS) this.list.lastElementChild.remove();
    if (!$('empty').hidden) this.#first(rows);
    $('empty').hidden = true;
    $('older').hidden = false;
    this.#unsaid += rows.length - gaps.length;
    this.suggestions?.count(rows);
  }

  /** The empty page turns into its first event, with the receipt. */
  #first(rows) {
    const row = rows.findLast(({ id }) => id);
    const place = $('first');
    if (!row || !place || isNarrowed(this.filters)) return;
    const [, partition, offset] = row.id.split('-');
    const link = document.createElement('a');
    link.href = at(`/events/${partition}/${offset}`);
    link.textContent = `partition ${partition}, offset ${offset}`;
    place.replaceChildren('The first event is in Kafka · ', link);
    place.hidden = false;
  }

  /** `37 events not shown (this tab was hidden for 12 s) · show them`. */
  #describe(row, { count, from, to, why, unfiltered, gone }) {
    // The server counts records before filtering.
    const upTo = unfiltered && isNarrowed(this.filters) ? 'Up to ' : '';
    row.textContent = `${count == null ? 'Some events' : upTo + events(count)} not shown${why ? ` (${why})` : ''}`;
    if (gone || !from || !to || from === to) return;
    const link = document.createElement('a');
    link.href = at(`/history?${new URLSearchParams([['from', from], ['to', to], ...this.filters])}`);
    link.textContent = 'show them';
    row.append(' · ', link);
  }

  #everySecond() {
    this.#seconds.push(this.#second);
    this.#seconds.shift();
    this.#second = 0;
    this.#known = Math.min(this.#known + 1, this.#seconds.length);
    if ($('rate')) this.#rate();
    this.#sum();
    this.#connection(this.stream.state);
    this.suggestions?.write();
    if ((this.#unsaid || this.#unsaidRejects) && Date.now() - this.#said >= SAY_EVERY) {
      const arrived = this.#unsaid === 1 ? '1 new event' : `${number(this.#unsaid)} new events`;
      const rejected = `${number(this.#unsaidRejects)} rejected`;
      say([this.#unsaid && arrived, this.#unsaidRejects && rejected].filter(Boolean).join(', '));
      this.#unsaid = 0;
      this.#unsaidRejects = 0;
      this.#said = Date.now();
    }
  }

  /** How long the stream has not reached a position of the server, in milliseconds. */
  #behind() {
    if (this.stream?.state.kind !== 'live') this.#heads = [];
    while (this.#heads.length && !distance(this.stream.cursor, this.#heads[0].head)) this.#heads.shift();
    return this.#heads.length ? Date.now() - this.#heads[0].at : 0;
  }

  /** Writes the account, every second and after what the user did. */
  #sum() {
    if ($('account')) write($('account'), this.#account.words(this.#backlog.count, isNarrowed(this.filters)));
  }

  /** Counts the events of the list by second, so that the rate is right from the start. `now` is the server's time in
   * milliseconds. A full list begins in the middle of a second, of which it does not know the rest. */
  #before(now) {
    const last = this.#seconds.length - 1;
    const ages = [...this.list.querySelectorAll(':scope > .event time')].map(({ dateTime }) =>
      Math.max(0, Math.floor((now - Date.parse(dateTime)) / 1000)),
    );
    this.#seconds.fill(0);
    for (const age of ages) if (age <= last) this.#seconds[last - age] += 1;
    this.#known = ages.length < FIRST_ROWS ? last + 1 : Math.min(Math.max(...ages), last + 1);
  }

  #rate() {
    const recent = this.#seconds.slice(-Math.min(5, this.#known));
    const rate = recent.reduce((sum, n) => sum + n, 0) / recent.length;
    const words = rate > 0 && rate < 10 ? `${rate.toFixed(1)}/s` : `${number(Math.round(rate))}/s`;
    const fast = this.#skipping && performance.now() - this.#skipping < 2000;
    $('rate').textContent = fast ? `${words}; showing ${ROWS_A_SECOND}/s` : words;
    $('count').textContent = `${number(this.#seen)} since ${this.#since}`;
  }

  #connection(state) {
    const now = Date.now();
    if (state.kind === 'resting') {
      this.#left ||= now;
    } else if (state.kind === 'live' && this.#left) {
      this.#absence = duration(now - this.#left);
      this.#left = 0;
      setTimeout(() => (this.#absence = ''), 3000);
    }
    const since = clockTime(new Date(state.since));
    const seconds = Math.ceil(((state.retryAt ?? 0) - now) / 1000);
    const next = seconds > 0 ? `in ${seconds} s` : 'now';
    const waiting = this.#backlog.count;
    const behind = this.#behind();
    const [dot, word, words] = {
      connecting: ['', 'connecting', 'Connecting to the server.'],
      resting: ['', 'asleep (tab hidden)', 'Disconnected while this tab is hidden; reconnects when you return.'],
      live: this.paused
        ? ['warn', `paused${waiting ? ` +${number(waiting)}` : ''}`, `Paused; ${events(waiting)} waiting.`]
        : behind > BEHIND
          ? ['warn', `${duration(behind)} behind`, `The stream is ${duration(behind)} behind the server.`]
          : ['good', 'live', `Live since ${since}.`],
      lost:
        now - state.since < 10_000
          ? ['warn', `reconnecting ${next}`, `Reconnecting ${next}: ${state.why}.`]
          : [
              'bad',
              `server unreachable since ${since}`,
              `Server unreachable since ${since}: ${state.why}. Retrying ${next}; the feed then continues where it stopped.`,
            ],
    }[state.kind];
    const brokerUnreachable = state.kind === 'live' && this.#broker?.broker === 'away';
    $('dot').className = `dot ${brokerUnreachable ? 'warn' : dot}`;
    const impaired = state.kind === 'live' && this.#broker?.broker === 'impaired';
    if (impaired || (dot === 'good' && this.stream?.buffering.buffers)) $('dot').className = 'dot warn';
    const shown = brokerUnreachable
      ? `${word === 'live' ? 'connected' : word}, Kafka unreachable`
      : impaired
        ? `${word}, Kafka impaired`
        : word;
    if ($('connection').textContent !== shown) {
      $('connection').textContent = shown;
      if (state.kind !== this.saidKind && state.kind !== 'connecting') say(words);
      this.saidKind = state.kind;
    }
    write($('connection-words'), words);
    this.#isLive = state.kind === 'live';
    this.#unreachable = brokerUnreachable ? 'Kafka unreachable' : dot === 'bad' ? 'Server unreachable' : '';
    this.#tell();
  }

  #proxyState(buffers) {
    $('proxy-notice').hidden = !buffers;
    const words = `A proxy buffers this stream, so events arrive late and in clumps. Turn off response buffering for ${at('/stream')} in the proxy (nginx: proxy_buffering off; docs/proxy.md has whole configurations).`;
    write($('proxy-notice'), buffers ? words : '');
    this.#connection(this.stream.state);
  }

  #brokerState() {
    const { broker, since, reason } = this.#broker;
    const unreachable = broker === 'away';
    const impaired = broker === 'impaired';
    $('broker-notice').hidden = !unreachable && !impaired;
    const at = clockTime(new Date(since ?? Date.now()));
    const words = unreachable
      ? `Kafka unreachable since ${at} (${reason}). New events are rejected until it is back; the feed then continues.`
      : impaired
        ? `Kafka connected, but ${reason}.`
        : '';
    write($('broker-notice'), words);
    $('broker-words').textContent = unreachable
      ? `unreachable since ${at}: ${reason}`
      : impaired
        ? `connected, but ${reason}`
        : 'connected';
    this.#connection(this.stream.state);
  }

  /** Applies filters while they are typed, and updates the address. */
  #filter() {
    const form = $('filters');
    let timer = 0;
    const apply = (how, exact = []) => {
      clearTimeout(timer);
      const filters = typed(form, exact);
      for (const input of exact) input.value = '';
      // Skip if the text was changed and changed back.
      if (how === 'entered' || `${filters}` !== `${this.filters}`) this.#apply(filters, how);
    };
    const applySoon = ({ type, target, inputType = 'insertReplacementText' }) => {
      if (target.closest('.by-field')) return;
      clearTimeout(timer);
      const chosen = type === 'input' && inputType === 'insertReplacementText' && isSuggested(target);
      if (chosen) apply('entered', [target]);
      else timer = setTimeout(() => apply('typed'), 300);
    };
    form.addEventListener('input', applySoon);
    form.addEventListener('change', applySoon);
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      apply('entered', suggested(form));
    });
    document.addEventListener('click', (event) => {
      const link = event.target.closest('#filters a, #head a, #rows a, #strip .legend a');
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey || link.pathname !== at('/')) return;
      event.preventDefault();
      this.#apply(filtersOf(new URL(link.href).search), 'followed');
    });
    addEventListener('popstate', () => {
      const filters = filtersOf(location.search);
      // A change of the fragment comes here too.
      if (`${filters}` !== `${this.filters}`) this.#apply(filters);
    });
  }

  /** Writes the filters into the address. What is typed makes one entry in the browser's history, which Enter completes:
   * Back leads to the filters of before. */
  #remember(filters, how) {
    const completes = history.state?.typed && how !== 'followed';
    const same = `${filters}` === `${this.filters}`;
    history[completes || same ? 'replaceState' : 'pushState']({ typed: how === 'typed' }, '', address(filters));
  }

  /** Fetches the page for these filters and takes list and cursor from it. `how` they came: 'typed', 'entered' with the
   * Enter key, 'followed' as a link, or undefined if the browser's history has them already. */
  async #apply(filters, how) {
    this.applying?.abort();
    const applying = new AbortController();
    this.applying = applying;
    let page;
    try {
      const answer = await fetch(address(filters), { headers: { Accept: 'text/html' }, signal: applying.signal });
      page = new DOMParser().parseFromString(await answer.text(), 'text/html');
      if (!answer.ok) {
        throw new Error(page.querySelector('.errors')?.textContent ?? `The server answered ${answer.status}.`);
      }
    } catch (error) {
      if (!applying.signal.aborted) {
        const why = error instanceof TypeError ? 'Server unreachable.' : error.message;
        $('count').textContent = `Filter not applied. ${why}`;
        say($('count').textContent);
      }
      return;
    }
    if (how) this.#remember(filters, how);
    const fresh = page.getElementById('rows');
    this.filters = filters;
    this.#backlog.clear();
    this.#seen = 0;
    this.#second = 0;
    this.#since = 'you changed the filters';
    this.list.classList.remove('dated');
    this.list.replaceChildren(...fresh.children);
    this.#before(fresh.dataset.now);
    this.#account = new Account(fresh.dataset.cursor);
    $('first').hidden = true;
    localTimes(this.list.children, this.list);
    const place = $('filters').contains(document.activeElement) ? document.activeElement : null;
    for (const id of ['empty', 'older', 'clear']) $(id).replaceWith(page.getElementById(id));
    showBase($('empty'));
    patch($('strip'), page.getElementById('strip'));
    this.#heads = [];
    for (const id of ['chips', 'head', 'unfold-label']) $(id).replaceWith(page.getElementById(id));
    $('feed').className = page.getElementById('feed').className;
    showZone();
    if (how === 'entered') {
      $('by-field').open = false;
      for (const input of $('by-field').querySelectorAll('input')) input.value = '';
    }
    for (const input of $('filters').querySelectorAll('label > input:not(.by-field *)')) {
      if (input.type === 'checkbox') {
        input.defaultChecked = filters.has(input.name);
        if (!how) input.checked = input.defaultChecked;
        continue;
      }
      input.defaultValue = filters.get(input.name) ?? '';
      // Keep the text of the input being typed in, except after navigation.
      if (!how || input !== document.activeElement) input.value = input.defaultValue;
    }
    // The link that had the focus is gone.
    if (place && !place.isConnected) {
      const [first, folded] = [$('filters').elements.user_prefix, $('unfold')];
      (first.checkVisibility() ? first : folded).focus();
    }
    this.stream.restart(fresh.dataset.cursor, filters);
    this.#waiting();
    this.#sum();
    say(`Filtered: ${events(this.list.childElementCount)} listed`);
  }
}

const address = (filters) => at(filters.size ? `/?${filters}` : '/');

/** Shows how many submissions were refused, and why the latest was. */
function showRejected({ count, latest }) {
  const notice = $('rejected');
  if (!notice) return;
  notice.hidden = !latest;
  if (!latest) return;
  const link = document.createElement('a');
  link.href = at('/rejects');
  link.textContent = `${number(count)} rejected`;
  const { route, status, title, pointer, detail } = latest;
  notice.replaceChildren(link, ` · the latest: ${route}, ${status} ${title}: ${pointer ? `${pointer} ` : ''}${detail}`);
}

/** Announces words to screen readers. The list itself is silent, because a busy feed would be announced all the time. */
function say(words) {
  $('said').textContent = words;
}

/** The suggestions for users and actions, each with how often it occurs. */
class Suggestions {
  #lists = [
    [$('users'), '.who:not(.key)'],
    [$('actions'), '.what'],
  ].map(([list, cell]) => ({ list, cell, counts: new Map([...list.options].map(counted)), fresh: false }));

  constructor() {
    // Before the browser shows a list.
    document.addEventListener('pointerdown', () => this.write());
  }

  count(rows) {
    for (const one of this.#lists) {
      for (const row of rows) {
        const name = row.querySelector(one.cell)?.textContent;
        if (name) one.counts.set(name, (one.counts.get(name) ?? 0) + 1);
      }
      one.fresh = true;
    }
  }

  /** Writes the lists, but not the one that the browser may be showing. */
  write() {
    for (const one of this.#lists) {
      if (!one.fresh || document.activeElement.list === one.list) continue;
      one.fresh = false;
      const sorted = [...one.counts].sort(([, a], [, b]) => b - a);
      if (sorted.length > MOST_COUNTED) one.counts = new Map(sorted.slice(0, MOST_COUNTED / 2));
      const option = ([name, count]) => new Option(`${name} ${count}`, name);
      one.list.replaceChildren(...sorted.slice(0, SUGGESTIONS).map(option));
    }
  }
}

/** Name and count of a suggestion. */
const counted = ({ value, label }) => [value, Number(label.slice(value.length))];
