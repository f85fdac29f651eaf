// JSON as text. Values are shown as they are in Kafka: JSON.parse would round large numbers and reorder members.

const TOKEN = /"[^"\\]*(?:\\[\s\S][^"\\]*)*"|[{}[\],:]|[^\s{}[\],:"]+/g;
// Deeper levels are not indented further: a value nested 10,000 deep must not become a megabyte of blanks.
const DEEPEST = 24;

/** The members of a JSON object as a Map from name to value; values remain JSON text. */
export function members(text) {
  const found = new Map();
  let depth = 0;
  let name = null;
  let start = -1;
  for (const { 0: token, index } of text.matchAll(TOKEN)) {
    if (depth === 1 && name === null && token[0] === '"') {
      name = JSON.parse(token);
      continue;
    }
    if (depth === 1 && (token === ',' || token === '}') && start >= 0) {
      found.set(name, text.slice(start, index).trim());
      name = null;
      start = -1;
    }
    if (depth === 1 && name !== null && start < 0 && token !== ':') start = index;
    if (token === '{' || token === '[') depth += 1;
    if (token === '}' || token === ']') depth -= 1;
  }
  return found;
}

/** The same JSON with one line for each member. */
export function pretty(text) {
  let out = '';
  let depth = 0;
  let opened = false;
  const line = () => `\n${'  '.repeat(Math.min(depth, DEEPEST))}`;
  for (const [token] of text.matchAll(TOKEN)) {
    const closes = token === '}' || token === ']';
    if (closes) depth -= 1;
    if (closes ? !opened : opened) out += line();
    opened = token === '{' || token === '[';
    if (opened) depth += 1;
    out += token === ':' ? ': ' : token;
    if (token === ',') out += line();
  }
  return out;
}
