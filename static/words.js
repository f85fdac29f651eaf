// Words and numbers as every page writes them.

/** `1,204`. */
export const number = (n) => n.toLocaleString('en');

/** `1 event`, `1,204 events`. */
export const events = (n) => (n === 1 ? '1 event' : `${number(n)} events`);

/** The text of a problem as a sentence: problems start in lower case and have no full stop. */
export const sentence = (text) => `${text.slice(0, 1).toUpperCase()}${text.slice(1)}${/[.!?…]$/.test(text) ? '' : '.'}`;

/** Bytes as hexadecimal numbers of two digits. */
export const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0'));

// The base path of the server, from the address of this file: `/footfall/static/words.js`.
const base = new URL('..', import.meta.url).pathname.slice(0, -1);

/** The address of a path of the server, such as `/footfall/history` for `/history`. */
export const at = (path) => base + path;

/** Keeps a value in a cookie for a year, for all pages of the server. */
export function remember(name, value) {
  // biome-ignore lint/suspicious/noDocumentCookie: the Cookie Store API needs HTTPS, and is not in every browser.
  document.cookie = `${name}=${value}; path=${base || '/'}; max-age=31536000; samesite=lax`;
}

/** Shows where the server is in elements of the class `base`: it may not know the address under which this browser reaches it. */
export function showBase(within) {
  for (const place of within.querySelectorAll('.base')) place.textContent = location.origin + base;
}

/** Whether the window has room for the opened record beside the list, as app.css decides it. */
export const isWide = () => matchMedia('(min-width: 1600px)').matches;

/** The element with this id. */
export const $ = (id) => document.getElementById(id);

/** Changes the text of an element if it is another one. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
