// What the programs here send. Each sends a few events at a time and waits for a line on its input before, so that
// dev/interop decides when.
import { createInterface } from 'node:readline';

const TURN = 20;

/** The numbers of the events of each turn. */
export async function* turns(count) {
  const lines = createInterface({ input: process.stdin });
  const line = lines[Symbol.asyncIterator]();
  for (let first = 0; first < count; first += TURN) {
    await line.next();
    yield Array.from({ length: Math.min(TURN, count - first) }, (_, index) => first + index);
  }
  lines.close();
}

export const event = (sender, number) => ({ user: `${sender}-${number % 7}`, action: 'Clicked', number });

/** The events of each turn, as `POST /api/v1/events` takes them. With ids, they can be sent again. */
export async function* batches(sender, count) {
  for await (const numbers of turns(count)) {
    yield numbers.map((number) => ({ id: `${sender}-${number}`, ...event(sender, number) }));
  }
}
