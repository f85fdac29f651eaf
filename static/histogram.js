// The histogram of the history page: it is loaded beside the rows, and matches are counted in it as the search finds them.

import { columnsOf, startCharts } from './chart.js';
import { at, sentence } from './words.js';

/** Width of a column in the drawing, as the server draws it. */
const COLUMN = 10;
/** Least height of a column with matches: few among many would not be seen. */
const SEEN = 3;

/** How many of the times are in each column, and the others of its records. Times outside the columns do not count. */
export function countsOf(columns, times) {
  const counts = columns.map(({ all }) => ({ matches: 0, others: all }));
  if (columns.length === 0) return counts;
  const [{ from, to }] = columns;
  for (const time of times) {
    const count = counts[Math.floor((time - from) / (to - from))];
    if (count) count.matches += 1;
  }
  // Where the server's counts are not exact, there may be more matches than records.
  for (const count of counts) count.others = Math.max(0, count.others - count.matches);
  return counts;
}

/** The paths of the matches and, on top of them, of the others. */
export function pathsOf(counts, top, height) {
  const rise = (count) => Number(((count / top) * height).toFixed(1));
  const paths = ['', ''];
  counts.forEach(({ matches, others }, index) => {
    const bar = (base, rises) =>
      rises > 0 ? `M${index * COLUMN} ${(height - base).toFixed(1)}h${COLUMN}v-${rises}h-${COLUMN}z` : '';
    const found = matches > 0 ? Math.max(SEEN, rise(matches)) : 0;
    paths[0] += bar(0, found);
    paths[1] += bar(found, Math.max(0, Number((rise(matches + others) - found).toFixed(1))));
  });
  return paths;
}

/** Start and width in percent of the part of the columns that was searched up to a time; null if there is none. */
export function searchedOf(columns, slots, reached, newestFirst) {
  if (columns.length === 0) return null;
  const step = columns[0].to - columns[0].from;
  const place = Math.max(0, Math.min(slots, (reached - columns[0].from) / step));
  const [start, end] = newestFirst ? [place, columns.length] : [0, Math.min(place, columns.length)];
  return end > start ? { left: (start / slots) * 100, width: ((end - start) / slots) * 100 } : null;
}

export class Histogram {
  #box;
  #times;
  #newestFirst;
  #reached = null;
  #columns = [];
  #waits = false;

  constructor(box) {
    this.#box = box;
    this.#times = box.dataset.times.split(',').filter(Boolean).map(Number);
    this.#newestFirst = box.dataset.newest === 'true';
    if (box.dataset.whole !== undefined) this.searchedAll();
    else if (this.#times.length > 0) this.#reached = this.#times.at(-1);
    this.#load();
  }

  /** Counts matches. */
  found(times) {
    this.#times.push(...times);
    this.#draw();
  }

  /** Marks what was searched. */
  searched(reached) {
    this.#reached = reached;
    this.#draw();
  }

  searchedAll() {
    this.searched(this.#newestFirst ? -Infinity : Infinity);
  }

  async #load() {
    if (!this.#box.querySelector('.plot')) {
      this.#box.setAttribute('aria-busy', 'true');
      try {
        const answer = await fetch(at(this.#box.dataset.histogram), { headers: { Accept: 'text/html' } });
        if (!answer.ok) throw new Error('the records could not be counted');
        this.#box.innerHTML = await answer.text();
      } catch ({ message }) {
        this.#box.textContent = sentence(message);
      }
      this.#box.removeAttribute('aria-busy');
      if (!this.#box.querySelector('.plot')) return;
      startCharts();
    }
    this.#columns = columnsOf(this.#box.querySelector('.plot')).map(({ from, to, values }) => ({
      from,
      to,
      all: values.reduce((sum, count) => sum + count, 0),
    }));
    this.#draw();
  }

  #draw() {
    if (this.#waits || this.#columns.length === 0) return;
    this.#waits = true;
    requestAnimationFrame(() => {
      this.#waits = false;
      const plot = this.#box.querySelector('.plot');
      const bars = plot.querySelectorAll('.bars');
      // Without filters there are no matches beside the records.
      if (bars.length < 2) return;
      const { width, height } = plot.querySelector('svg').viewBox.baseVal;
      const counts = countsOf(this.#columns, this.#times);
      const paths = pathsOf(counts, Number(plot.dataset.top), height);
      for (const [index, path] of paths.entries()) bars[index].setAttribute('d', path);
      for (const [index, { dataset }] of plot.querySelectorAll('svg a').entries()) {
        const values = `${counts[index].matches},${counts[index].others}`;
        if (dataset.n !== values) dataset.n = values;
      }
      this.#mark(plot, Math.round(width / COLUMN));
    });
  }

  #mark(plot, slots) {
    const part = this.#reached === null ? null : searchedOf(this.#columns, slots, this.#reached, this.#newestFirst);
    if (!part) return;
    let mark = plot.querySelector('.searched');
    if (!mark) {
      mark = document.createElement('div');
      mark.className = 'searched';
      mark.title = 'Searched so far';
      plot.append(mark);
    }
    mark.style.left = `${part.left}%`;
    mark.style.width = `${part.width}%`;
  }
}
