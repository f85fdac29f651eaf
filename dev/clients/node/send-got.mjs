// got, with its own retries. Usage: send-got URL SENDER COUNT
import got from 'got';
import { batches } from './turns.mjs';

const [url, sender, count] = process.argv.slice(2);

const retry = { limit: 100, methods: ['POST'], statusCodes: [429, 502, 503, 504], backoffLimit: 2000 };
for await (const events of batches(sender, Number(count))) {
  const headers = { prefer: 'handling=strict' };
  await got.post(`${url}/api/v1/events`, { json: events, headers, retry, timeout: { request: 30_000 } });
}
