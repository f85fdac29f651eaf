// Segment's SDK for Node.js. Usage: send-segment URL SENDER COUNT. Ends when all of its messages were taken.
import { Analytics } from '@segment/analytics-node';
import { turns } from './turns.mjs';

const [url, sender, count] = process.argv.slice(2);

// 100 messages a request, and as patient as the outages that it meets.
const analytics = new Analytics({ writeKey: 'write-key', host: url, maxEventsInBatch: 100, maxRetries: 100 });
analytics.on('error', (error) => console.log(error));
for await (const numbers of turns(Number(count))) {
  for (const number of numbers) {
    analytics.track({ userId: `${sender}-${number % 7}`, event: 'Clicked', properties: { number } });
  }
}
await analytics.closeAndFlush({ timeout: 600_000 });
