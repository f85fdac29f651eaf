// npm @microsoft/fetch-event-source: reconnects by itself, from the last id, when a connection breaks. When the server
// ends the stream (after `bye`) it does so only if `onclose` throws. Events of all names come the same way.

// What it uses of a browser, and Node.js does not have.
globalThis.window = globalThis;
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };

const { fetchEventSource } = await import('@microsoft/fetch-event-source');

await fetchEventSource(process.argv[2], {
  onmessage(message) {
    const data = JSON.parse(message.data);
    if (message.event === '') console.log(data.partition, data.offset);
  },
  onclose() {
    throw new Error('the server ended the stream: connect again');
  },
});
