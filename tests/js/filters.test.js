import assert from 'node:assert/strict';
import test from 'node:test';

import { columned, filtersOf, isNarrowed, named, pointerTo, valued } from '../../static/filters.js';

const query = (text) => new URLSearchParams(text);

test('only filters and columns are taken from an address', () => {
  assert.equal(
    `${filtersOf('?sent=1-2&user=Ann&q=&case=exact&f=/a:eq:1&col=/a')}`,
    'user=Ann&f=%2Fa%3Aeq%3A1&col=%2Fa',
  );
  assert.equal(`${filtersOf('?case=exact&f=/a:prefix:x')}`, 'case=exact&f=%2Fa%3Aprefix%3Ax');
  assert.deepEqual(
    ['col=/a', 'col=/a&not_user=x'].map((text) => isNarrowed(query(text))),
    [false, true],
  );
});

test('a name replaces the other names of its field, or is left out', () => {
  const [only, without] = named(query('user=Bob&user=Ann&user_prefix=c&q=x'), 'user', 'Ann');
  assert.equal(`${only}`, 'q=x&user=Ann');
  assert.equal(`${without}`, 'user_prefix=c&q=x&user=Bob&not_user=Ann');
});

test('a value is wanted, or left out, but not both', () => {
  const [only, without] = valued(query('f=/at:ne:12:30&f=/b:exists'), '/at:eq:12:30');
  assert.deepEqual(
    [only.getAll('f'), without.getAll('f')],
    [
      ['/b:exists', '/at:eq:12:30'],
      ['/b:exists', '/at:ne:12:30'],
    ],
  );
  assert.equal(`${columned(query('q=x'), '/at:eq:12:30')}`, 'q=x&col=%2Fat');
  assert.equal(`${columned(query('col=/at'), '/at')}`, 'col=%2Fat');
});

test('names are escaped in pointers', () => {
  assert.equal(pointerTo('a/b~c:d%'), '/a~1b~0c%3Ad%25');
});
