// undici, the HTTP client of Node.js, with its RetryAgent. Usage: send-undici URL SENDER COUNT
import { Agent, RetryAgent, request } from 'undici';
import { batches } from './turns.mjs';

const [url, sender, count] = process.argv.slice(2);

const dispatcher = new RetryAgent(new Agent(), {
  maxRetries: 100,
  minTimeout: 200,
  maxTimeout: 2000,
  methods: ['POST'],
  statusCodes: [429, 502, 503, 504],
});
for await (const events of batches(sender, Number(count))) {
  const headers = { 'Content-Type': 'application/json', Prefer: 'handling=strict' };
  const body = JSON.stringify(events);
  const answer = await request(`${url}/api/v1/events`, { method: 'POST', headers, body, dispatcher });
  if (answer.statusCode !== 201) throw new Error(`the answer is ${answer.statusCode}`);
  await answer.body.dump();
}
