// Changes a part of the page in place, so that focus, selection and opened details stay.

/** Makes `old` equal to `fresh`. Details stay open or closed, and elements with `data-keep` belong to a script. */
export function patch(old, fresh) {
  if (old.isEqualNode(fresh) || old.dataset?.keep !== undefined) return;
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
    if (name !== 'open' && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const byId = new Map([...old.children].filter((child) => child.id).map((child) => [child.id, child]));
  let at = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const known = child.id ? byId.get(child.id) : at && !at.id && at.nodeName === child.nodeName ? at : null;
    if (!known) {
      old.insertBefore(document.importNode(child, true), at);
      continue;
    }
    // Nodes in between were removed, or are matched later by their id.
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
