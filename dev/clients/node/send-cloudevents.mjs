// The CloudEvents SDK for JavaScript, in both modes. Usage: send-cloudevents URL SENDER COUNT
import { setTimeout } from 'node:timers/promises';
import { CloudEvent, emitterFor, httpTransport, Mode } from 'cloudevents';
import { event, turns } from './turns.mjs';

const [url, sender, count] = process.argv.slice(2);

const transport = httpTransport(`${url}/api/v1/events`);
const emitters = [emitterFor(transport, { mode: Mode.STRUCTURED }), emitterFor(transport)];

/** The transport does not return the status, but a receipt has an offset. */
async function send(emit, cloudEvent) {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const { body } = await emit(cloudEvent).catch(() => ({ body: '{}' }));
    if (JSON.parse(body).offset !== undefined) return;
    await setTimeout(500);
  }
  throw new Error(`${cloudEvent.id} was not taken`);
}

for await (const numbers of turns(Number(count))) {
  for (const number of numbers) {
    const attributes = { id: `${sender}-${number}`, source: '/interop/javascript', type: 'com.example.click' };
    await send(emitters[number % 2], new CloudEvent({ ...attributes, data: event(sender, number) }));
  }
}
