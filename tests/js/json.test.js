// static/json.js: JSON as text, shown as it is in Kafka.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { members, pretty } from '../../static/json.js';

test('members are the top-level members, each value as it was written', () => {
  const text = '{"n": 12345678901234567890, "price":1.50,"list" : [1, {"n": 2}], "empty": {}, "nothing":null}';
  assert.deepEqual(
    [...members(text)],
    [
      ['n', '12345678901234567890'],
      ['price', '1.50'],
      ['list', '[1, {"n": 2}]'],
      ['empty', '{}'],
      ['nothing', 'null'],
    ],
  );
});

test('a name is decoded, a value is not', () => {
  assert.deepEqual([...members(String.raw`{"a\"b\n": "c\"d,}\n"}`)], [['a"b\n', String.raw`"c\"d,}\n"`]]);
});

test('brackets, colons and commas within a string do not end it', () => {
  const text = '{"text":"{[:,]}","next":"é€😀"}';
  assert.deepEqual([...members(text).values()], ['"{[:,]}"', '"é€😀"']);
});

test('what is no object has no members', () => {
  for (const text of ['{}', '[]', '1', '"text"', 'null']) assert.equal(members(text).size, 0, text);
});

test('pretty puts each member and each item on a line of its own', () => {
  assert.equal(
    pretty('{"a":1,"b":[true,{"c":"d"}]}'),
    '{\n  "a": 1,\n  "b": [\n    true,\n    {\n      "c": "d"\n    }\n  ]\n}',
  );
});

test('pretty agrees with JSON.stringify where values are short and none is empty', () => {
  const value = { user: 'Zoë', path: ['a', 'b'], nested: { deep: { deeper: [1, [2, [3]]] } }, escaped: '"\\\n\u0001' };
  assert.equal(pretty(JSON.stringify(value)), JSON.stringify(value, null, 2));
});

test('pretty leaves empty objects and arrays on one line', () => {
  assert.equal(pretty('{"a":{},"b":[ ],"c":[{}]}'), '{\n  "a": {},\n  "b": [],\n  "c": [\n    {}\n  ]\n}');
});

test('pretty changes nothing but white space', () => {
  const text = '{"n":12345678901234567890,"e":1.0E+2,"s":"a  b, {c}: [d]","u":"\\u00e9"}';
  assert.equal(pretty(text).replaceAll(/\n */g, '').replaceAll('": ', '":'), text);
});

test('a value nested 10,000 deep grows by a bounded indentation a line', () => {
  const depth = 10_000;
  const lines = pretty('['.repeat(depth) + ']'.repeat(depth)).split('\n');
  assert.equal(lines.length, 2 * depth - 1);
  assert.equal(Math.max(...lines.map((line) => line.length)), 24 * 2 + 2);
});
