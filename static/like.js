// More like this: links beside a field of a row, for filters and columns. They show where the pointer rests; the open row has
// them for the keyboard and for touch.

import { columned, named, pageOf, pointerTo, valued } from './filters.js';

// The links cover what is beside the field, so a pointer that passes must not show them.
const RESTS_FOR = 150;

export function startLinks(list) {
  const bar = document.createElement('span');
  bar.className = 'like';
  let timer = 0;
  const hide = () => {
    clearTimeout(timer);
    bar.remove();
  };
  list.addEventListener('pointerover', ({ target, pointerType }) => {
    if (pointerType !== 'mouse' || bar.contains(target)) return;
    hide();
    // The links to user and action lie over their names.
    const to = target.closest('.to');
    const name = to?.matches('.user') ? '.who' : '.what';
    const field = to
      ? to.parentNode.querySelector(name)
      : target.closest('summary .who:not(.key), summary .what, summary bdi:has(> b)');
    if (field?.textContent) timer = setTimeout(() => show(list, bar, field), RESTS_FOR);
  });
  list.addEventListener('pointerleave', hide);
  // A drag selects text: it takes no link along, and must not open the row or follow a link.
  list.addEventListener('dragstart', (event) => event.target.closest?.('.to') && event.preventDefault());
  list.addEventListener('click', (event) => {
    const selection = getSelection();
    if (
      event.detail &&
      !selection.isCollapsed &&
      event.target.closest('summary, .to') &&
      selection.containsNode(event.target, true)
    )
      event.preventDefault();
  });
}

function show(list, bar, field) {
  const row = field.closest('li');
  if (!row) return;
  const links = linksOf(list, field);
  if (!links.length) return;
  bar.replaceChildren(...links);
  row.append(bar);
  const place = row.getBoundingClientRect();
  // The end of the text, and not of its column: the links must not lie over the next one.
  const text = document.createRange();
  text.selectNodeContents(field);
  const end = Math.min(text.getBoundingClientRect().right, field.getBoundingClientRect().right);
  const right = Math.min(end - place.left, place.width - bar.offsetWidth);
  bar.style.left = `${Math.round(right)}px`;
}

function linksOf(list, field) {
  const [page, query] = pageOf(list);
  const link = (glyph, words, address) => {
    const made = document.createElement('a');
    made.href = address;
    made.textContent = glyph;
    made.title = words;
    // The open row has the same links.
    made.tabIndex = -1;
    return made;
  };
  const both = ([only, without]) => [
    link('⊕', 'Only this value', `${page}?${only}`),
    link('⊖', 'Without this value', `${page}?${without}`),
  ];
  if (field.matches('.what')) return both(named(query, 'action', field.textContent));
  if (field.matches('.who')) {
    const links = both(named(query, 'user', field.textContent));
    const user = field.closest('li').querySelector('a.to.user');
    if (user) links.push(link('→', 'This user’s page', user.href));
    return links;
  }
  const condition = field.dataset.f ?? conditionOf(field);
  if (!condition) return [];
  const column = field.closest('.cell') ? [] : [link('▥', 'Show as a column', `${page}?${columned(query, condition)}`)];
  return [...(condition.includes(':') ? both(valued(query, condition)) : []), ...column];
}

/** The condition on a field that has no `data-f`: name and value are as they are shown. */
function conditionOf(field) {
  const pointer = pointerTo(field.firstChild.textContent.slice(0, -1));
  const value = field.textContent.slice(field.firstChild.textContent.length);
  return /^[{[]/.test(value) ? pointer : `${pointer}:eq:${value}`;
}
