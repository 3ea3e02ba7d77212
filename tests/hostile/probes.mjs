// The thread that asks all probes all the time, so that nothing that a test does in its own thread delays it.
import http from 'node:http';
import { parentPort, workerData } from 'node:worker_threads';

const { urls, everyMs, timeoutMs } = workerData;

/** Milliseconds to the answer, on a connection of its own as the kubelet has; throws if it is not 200. */
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
    sent.on('timeout', () => sent.destroy(new Error(`no answer within ${timeoutMs} ms`)));
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
