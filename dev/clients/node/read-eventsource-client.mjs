// npm eventsource-client: reconnects by itself, from the last id. Events of all names come the same way.
import { createEventSource } from 'eventsource-client';

const es = createEventSource({ url: process.argv[2] });

for await (const { data, event } of es) {
  const message = JSON.parse(data);
  if (event === undefined) console.log(message.partition, message.offset);
}
