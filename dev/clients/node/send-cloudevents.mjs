// The CloudEvents SDK for JavaScript.
// Usage: send-cloudevents URL ID binary|structured
import { CloudEvent, emitterFor, httpTransport, Mode } from 'cloudevents';

const [url, id, mode] = process.argv.slice(2);

const emit =
  mode === 'binary' ? emitterFor(httpTransport(url)) : emitterFor(httpTransport(url), { mode: Mode.STRUCTURED });
const event = new CloudEvent({
  id,
  source: '/interop/javascript',
  type: 'com.example.login',
  data: { user: 'Zoë', action: 'login' },
});

for (let attempt = 1; ; attempt += 1) {
  try {
    const { body } = await emit(event);
    console.log(body);
    break;
  } catch (error) {
    if (attempt === 5) throw error;
  }
}
