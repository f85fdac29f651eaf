// A page that fetches itself: what differs is changed in place, so that focus, selection and what was opened stay.

const words = document.getElementById('refreshed');

const say = (text) => {
  if (words && words.textContent !== text) words.textContent = text;
};

/** Makes `old` like `fresh`. What the reader has opened stays open. */
export function patch(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeName !== fresh.nodeName) {
    old.replaceWith(document.importNode(fresh, true));
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (name !== 'open' && !fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const byId = new Map([...old.children].filter((child) => child.id).map((child) => [child.id, child]));
  let at = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const known = child.id ? byId.get(child.id) : at && !at.id && at.nodeName === child.nodeName ? at : null;
    if (!known) {
      old.insertBefore(document.importNode(child, true), at);
      continue;
    }
    // What lies between was taken away or comes later by its id.
    if (known === at) at = at.nextSibling;
    else old.insertBefore(known, at);
    patch(known, child);
    byId.delete(child.id);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

/** Keeps the element, and what the bar says of Kafka, as the server has them while someone can see it. */
export function startRefresh(element) {
  const every = Number(element.dataset.refresh) * 1000;
  const parts = [element.id, 'away', 'state'];
  let timer;
  let under_way = false;
  let silent_since;

  async function refresh() {
    if (under_way || document.hidden) return;
    under_way = true;
    try {
      const answer = await fetch(location.href, { signal: AbortSignal.timeout(15_000) });
      if (!answer.ok) throw new Error(`it answers ${answer.status}`);
      const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
      for (const id of parts) {
        const [old, fresh] = [document.getElementById(id), page.getElementById(id)];
        if (old && fresh) patch(old, fresh);
      }
      silent_since = undefined;
      say(`Moves by itself every ${every / 1000} s.`);
    } catch {
      silent_since ??= new Date().toLocaleTimeString('en-GB');
      say(`The server does not answer since ${silent_since}; what you see is from before. Trying on.`);
    }
    under_way = false;
    schedule();
  }

  function schedule() {
    clearTimeout(timer);
    if (!document.hidden) timer = setTimeout(refresh, every);
  }

  document.addEventListener('visibilitychange', () => (document.hidden ? clearTimeout(timer) : refresh()));
  say(`Moves by itself every ${every / 1000} s.`);
  schedule();
}
