// Sends the form without a reload: the input stays, the answer appears beside it.

import { $, at, hex, remember, sentence } from './words.js';

// How long to wait for an answer beyond the server's own deadline for Kafka's acknowledgement.
const BEYOND_DEADLINE = 10_000;
// Show "Sending…" only after this many milliseconds.
const SAY_AFTER = 300;

export function startForm() {
  const form = $('event-form');
  if (!form) return;
  let sending = false;
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    if (sending) return;
    sending = true;
    form.setAttribute('aria-busy', 'true');
    const words = setTimeout(showSending, SAY_AFTER, form, true);
    const { receipt, problems } = await send(form);
    clearTimeout(words);
    sending = false;
    form.removeAttribute('aria-busy');
    showSending(form, false);
    if (receipt) form.elements.id.value = newId();
    showProblems(problems);
    showReceipt(receipt);
    if (receipt) $('action').select();
  });
  // In the details Enter starts a new line; Ctrl or Cmd with Enter sends.
  $('details').addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  document.addEventListener('click', (event) => {
    const link = event.target.closest('a[href$="#send"], #send .close');
    if (!link) return;
    event.preventDefault();
    if (link.closest('#send')) closeForm();
    else openForm();
  });
  // The address may have opened it: from here on, only the class does.
  if (location.hash === '#send') {
    history.replaceState(history.state, '', location.pathname + location.search);
    openForm();
  }
}

/** Opens the form, and focuses its first field. The next visit finds it open. */
function openForm() {
  keep(true);
  $('user').focus();
}

/** Closes the form, also for the next visit. */
function closeForm() {
  keep(false);
  $('to-form').focus();
}

function keep(open) {
  $('send').classList.remove('first');
  $('send').classList.toggle('open', open);
  remember('footfall-form', open ? 'open' : 'closed');
}

/** A new id for the next event. Until an event is saved, sending again sends it under the same id. */
function newId() {
  return hex(crypto.getRandomValues(new Uint8Array(16))).join('');
}

function showSending(form, sending) {
  form.querySelector('[type=submit]').textContent = sending ? 'Sending…' : 'Send';
  if (sending) $('said').textContent = 'Sending…';
}

/** Sends the form. Returns the receipt, or problems as `[field, words]`; the field is empty if none is to blame. */
async function send(form) {
  let answer;
  const start = performance.now();
  const deadline = Number(form.dataset.deadline) + BEYOND_DEADLINE;
  try {
    answer = await fetch(form.getAttribute('action'), {
      method: 'POST',
      headers: { Accept: 'application/json' },
      body: new URLSearchParams(new FormData(form)),
      signal: AbortSignal.timeout(deadline),
    });
  } catch (error) {
    const words =
      error.name === 'TimeoutError'
        ? `No answer after ${Math.round(deadline / 1000)} s. The event may have been saved. Send again: it is not saved twice.`
        : 'Server unreachable. Your input is kept; send again.';
    return { problems: [['', words]] };
  }
  const body = await answer.json().catch(() => ({}));
  if (answer.status === 201) return { receipt: { ...body, ms: Math.round(performance.now() - start) }, problems: [] };
  if (body.errors?.length) {
    return { problems: body.errors.map(({ pointer, detail }) => [field(pointer), detail]) };
  }
  // A form that was changed since the last attempt is another event; the server has given it another id.
  if (body.id) form.elements.id.value = body.id;
  const wait = answer.headers.get('Retry-After');
  const words = body.detail ?? body.title ?? `The server answered ${answer.status}.`;
  return { problems: [['', wait ? `${sentence(words)} Try again in ${wait} s.` : sentence(words)]] };
}

/** The form field of a JSON Pointer: `/user` and `/action` name fields, everything else is in the details. */
function field(pointer = '') {
  const name = pointer.split('/')[1] ?? '';
  return ['', 'user', 'action'].includes(name) ? name : 'details';
}

function showProblems(problems) {
  for (const name of ['user', 'action', 'details']) {
    const words = problems.find(([field]) => field === name)?.[1] ?? '';
    $(`${name}-error`).textContent = words;
    if (words) $(name).setAttribute('aria-invalid', 'true');
    else $(name).removeAttribute('aria-invalid');
  }
  const box = $('problem');
  box.hidden = problems.length === 0;
  if (!problems.length) return box.replaceChildren();
  const title = document.createElement('p');
  title.textContent = 'Not sent.';
  const list = document.createElement('ul');
  for (const [name, words] of problems) {
    const item = document.createElement('li');
    if (name) {
      const link = document.createElement('a');
      link.href = `#${name}`;
      link.textContent = `${name[0].toUpperCase()}${name.slice(1)} ${words}`;
      link.addEventListener('click', (event) => {
        event.preventDefault();
        $(name).focus();
      });
      item.append(link);
    } else {
      item.textContent = words;
    }
    list.append(item);
  }
  box.replaceChildren(title, list);
  const first = problems.find(([name]) => name)?.[0];
  if (first) $(first).focus();
}

function showReceipt(receipt) {
  const place = $('receipt');
  if (!receipt) return place.replaceChildren();
  const link = document.createElement('a');
  link.href = at(`/events/${receipt.partition}/${receipt.offset}`);
  link.textContent = `partition ${receipt.partition}, offset ${receipt.offset}`;
  place.replaceChildren('Saved to Kafka · ', link, ` · ${receipt.ms} ms`);
}
