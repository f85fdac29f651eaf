// Tests a page's tracking with Playwright: `footfall serve --ephemeral` takes its events, and the tests read them.
//
//   npm install playwright-core && FOOTFALL=path/to/footfall node --test tracking.test.mjs

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, before, beforeEach, test } from 'node:test';
import { chromium } from 'playwright-core';

/** Stands for your page: its button tracks a click. */
const PAGE = `<!doctype html><title>Shop</title><button>Buy</button><script>
  document.querySelector('button').onclick = () => fetch('/api/v1/events', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ user: new URLSearchParams(location.search).get('user'), action: 'buy', product: 3 }),
  });
</script>`;

let footfall, url, browser, page;
const read = async (path) => (await fetch(`${url}/api/v1/${path}`)).json();

before(async () => {
  // Its input is a pipe, so it ends with the tests, however they end.
  footfall = spawn(process.env.FOOTFALL ?? 'footfall', ['serve', '--ephemeral'], { stdio: ['pipe', 'pipe', 'ignore'] });
  ({ url } = JSON.parse(await once(footfall.stdout, 'data')));
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium' });
});

beforeEach(async () => {
  await fetch(`${url}/api/v1/events`, { method: 'DELETE' });
  page = await browser.newPage();
  // The page has the address of Footfall, as if your server passed /api/v1/events on to it.
  await page.route(`${url}/shop?*`, (route) => route.fulfill({ contentType: 'text/html', body: PAGE }));
});

after(async () => {
  await browser?.close();
  footfall?.kill();
});

async function buy(user) {
  await page.goto(`${url}/shop?user=${user}`);
  await Promise.all([page.waitForResponse('**/api/v1/events'), page.click('button')]);
}

test('a click is tracked', async () => {
  await buy('Ann');
  const { events } = await read('events');
  assert.deepEqual(events.map(({ value }) => [value.user, value.action, value.product]), [['Ann', 'buy', 3]]);
});

test('a click without a user is rejected', async () => {
  await buy('');
  const { rejects } = await read('rejects');
  assert.deepEqual(rejects.map(({ status, pointer }) => [status, pointer]), [[422, '/user']]);
});
