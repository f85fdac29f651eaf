// Shows the full record under its row; fetches it when the row is opened.

import { copyBy } from './copy.js';
import { isFilter, pageOf } from './filters.js';
import { members, pretty } from './json.js';
import { exactTime } from './time.js';
import { at, hex, isWide, number } from './words.js';

// Characters shown of a value; Copy copies all of it.
const MOST_SHOWN = 200_000;

/** Shows the record of an open row. Beside the list there is room for one. */
export function open(details) {
  if (isWide()) {
    for (const other of details.closest('.rows').querySelectorAll('li > details[open]')) {
      if (other !== details) other.open = false;
    }
  }
  show(details);
}

async function show(details) {
  const link = details.querySelector('a.whole');
  if (!link || details.loading) return;
  details.loading = true;
  link.textContent = 'Loading the record…';
  try {
    const signal = AbortSignal.timeout(10_000);
    // Without its neighbours, which would be looked for.
    const alone = new URL(link.href);
    alone.searchParams.set('alone', '1');
    const get = (address, Accept) => fetch(address, { headers: { Accept }, signal });
    const [answer, page] = await Promise.all([
      get(at(`/api/v1${link.pathname.slice(at('').length)}`), 'application/json'),
      get(alone, 'text/html'),
    ]);
    if (answer.status === 404) throw new Error('Kafka no longer has this record');
    if (!answer.ok)
      throw new Error((await answer.json().catch(() => ({}))).detail ?? `The server answered ${answer.status}`);
    const whole = page.ok ? new DOMParser().parseFromString(await page.text(), 'text/html') : null;
    const address = link.origin + link.pathname;
    details.querySelector('.links').replaceWith(detail(await answer.text(), address, whole, details));
  } catch (error) {
    const why = error.name === 'TimeoutError' || error instanceof TypeError ? 'Server unreachable' : error.message;
    link.textContent = `${why}. Close and open the row to try again.`;
  } finally {
    details.loading = false;
  }
}

/** The fields on the page of a record, with links to the page of the list. */
function fieldsOf(whole, list) {
  const fields = whole?.getElementById('fields');
  if (!fields) return null;
  fields.removeAttribute('id');
  const [page, query] = pageOf(list);
  const others = [...query].filter(([name]) => !isFilter(name));
  for (const link of fields.querySelectorAll('a')) {
    const address = new URL(link.href);
    for (const [name, value] of others) address.searchParams.append(name, value);
    link.href = page + address.search;
  }
  return fields;
}

function detail(json, address, page, details) {
  const fields = fieldsOf(page, details.closest('.rows'));
  const record = members(json);
  const field = (name) => JSON.parse(record.get(name) ?? 'null');
  // A link to the history from this time on.
  const time = (name) =>
    page?.querySelector(`[data-from=${name}]`) ?? (field(name) ? exactTime(new Date(field(name))) : 'none');
  const facts = element('dl');
  const fact = (name, text) => {
    if (text === null) return;
    const value = element('dd');
    value.append(text);
    facts.append(element('dt', name), value);
  };
  fact('Event time', time('time'));
  fact('Written to Kafka', time('timestamp'));
  fact('Key', field('key') ?? (record.has('key_raw') ? read(field('key_raw')) : 'none'));
  fact('Partition', record.get('partition'));
  fact('Offset', record.get('offset'));
  fact('Event id', field('id'));
  for (const [name, value] of members(record.get('headers') ?? '{}')) {
    fact(`Header ${name}`, value[0] === '"' ? JSON.parse(value) : value);
  }

  const value = record.has('raw') ? read(field('raw')) : record.get('value');
  const text = record.has('raw') ? value : pretty(value);
  const shown = element('pre', text.length > MOST_SHOWN ? `${text.slice(0, MOST_SHOWN)}…` : text);
  shown.tabIndex = 0;
  shown.setAttribute('role', 'group');
  shown.setAttribute('aria-label', 'Value');

  const buttons = element('p');
  buttons.className = 'buttons';
  const share = element('a', 'Open the record');
  share.className = 'button';
  share.href = address;
  buttons.append(copier('Copy value', value), copier('Copy record', json.trim()), copier('Copy link', address), share);

  const whole = element('div');
  whole.className = 'detail';
  whole.append(facts, ...(fields ? [fields] : []), shown, buttons);
  return whole;
}

/** Bytes as text if they are UTF-8, else the start of a hex dump. */
function read(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    const lines = [];
    for (let at = 0; at < Math.min(bytes.length, 512); at += 16) {
      lines.push(`${at.toString(16).padStart(6, '0')}  ${hex(bytes.slice(at, at + 16)).join(' ')}`);
    }
    if (bytes.length > 512) lines.push(`… ${number(bytes.length)} bytes in all`);
    return lines.join('\n');
  }
}

function copier(label, text) {
  const button = element('button', label);
  button.type = 'button';
  button.addEventListener('click', () => copyBy(button, text));
  return button;
}

function element(name, text = '') {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}
