// axios, with axios-retry. Usage: send-axios URL SENDER COUNT
import axios from 'axios';
import axiosRetry, { isNetworkError } from 'axios-retry';
import { batches } from './turns.mjs';

const [url, sender, count] = process.argv.slice(2);

axiosRetry(axios, {
  retries: 100,
  retryDelay: () => 500,
  retryCondition: (error) => isNetworkError(error) || [429, 502, 503, 504].includes(error.response?.status),
});
for await (const events of batches(sender, Number(count))) {
  await axios.post(`${url}/api/v1/events`, events, { headers: { Prefer: 'handling=strict' }, timeout: 30_000 });
}
