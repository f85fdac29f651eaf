// npm eventsource: as in browsers. It reconnects by itself, from the last id.
import { EventSource } from 'eventsource';

const es = new EventSource(process.argv[2]);

es.addEventListener('message', (event) => {
  const record = JSON.parse(event.data);
  console.log(record.partition, record.offset);
});
