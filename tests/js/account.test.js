// static/account.js: the line of account adds up, whatever happened.

import assert from 'node:assert/strict';
import { test } from 'node:test';

globalThis.document = {};
const { Account, distance } = await import('../../static/account.js');

const words = (account, waiting = 0, narrowed = false) => account.words(waiting, narrowed).replace(/ · latest .*/, '');

test('the distance is the sum of all partitions; an added one starts at 0, an unknown one counts nothing', () => {
  assert.equal(distance('0-5.1-7', '0-6.1-10'), 4);
  assert.equal(distance('0-5', '0-5.1-3'), 3);
  assert.equal(distance('0-5.1-9223372036854775808', '0-6.1-40'), 1);
  assert.equal(distance('0-5.1-3', '0-6.1-9223372036854775808'), 1);
  assert.equal(distance('', '0-5'), 0);
});

test('what matched is shown, waits or was left out; what was passed otherwise is filtered or lost', () => {
  const account = new Account('0-0.1-0');
  assert.equal(words(account), '0 arrived = 0 shown · 0 lost');
  account.advance('0-3.1-0', 1);
  account.advance('0-3.1-100', 90);
  account.lose(20, '0-23.1-100');
  account.advance('0-23.1-107');
  account.show(5);
  assert.equal(words(account, 6, true), '130 arrived = 5 shown + 6 waiting + 19 filtered + 80 left out + 20 lost');
});

test('after a gap without a number the account goes on in the new topic', () => {
  const account = new Account('0-1000');
  account.advance('0-1001', 1);
  account.lose(null, '0-2');
  account.advance('0-5', 3);
  account.show(4);
  assert.equal(words(account), '4 arrived = 4 shown · 0 lost');
});

test('without a filter, offsets that are no event are named', () => {
  const account = new Account('0-0');
  account.advance('0-4', 3);
  account.show(3);
  assert.equal(words(account), '4 arrived = 3 shown + 1 offsets without a record · 0 lost');
});
