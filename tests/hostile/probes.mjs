// A worker thread that sends probes all the time, so that work in the test's main thread does not delay them.
import http from 'node:http';
import { parentPort, workerData } from 'node:worker_threads';

const { urls, everyMs, timeoutMs } = workerData;

/** Milliseconds to the response, on a new connection like the kubelet's; throws if the status is not 200. */
function probe(url) {
  const begin = performance.now();
  return new Promise((resolve, reject) => {
    const sent = http.get(url, { agent: false, timeout: timeoutMs }, (response) => {
      response.resume();
      response.on('error', reject);
      response.on('end', () => {
        if (response.statusCode === 200) resolve(performance.now() - begin);
        else reject(new Error(`status ${response.statusCode}`));
      });
    });
    sent.on('timeout', () => sent.destroy(new Error(`no response within ${timeoutMs} ms`)));
    sent.on('error', reject);
  });
}

for (const url of urls) {
  const ask = async () => {
    try {
      parentPort.postMessage({ url, ms: await probe(url) });
    } catch (error) {
      parentPort.postMessage({ url, failed: error.code ?? error.message });
    }
    setTimeout(ask, everyMs);
  };
  ask();
}
