// What a crowd on the admin port does to its probes: 200 connections that send a byte a second, ten scrapers that keep
// their connections, and senders of headers without end, against each of the three processes in turn.
//
//   RUNNEL_BIN=build/release/bin node tests/hostile/admin_port.mjs [--seconds=10] [--figures]
//
// Fails if a probe is not answered with 200 within a second. With --figures also if one takes more than 100 ms or the
// process grows by 4 MiB or more; those hold for a release build on a machine that does nothing else.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { parseArgs } from 'node:util';

import { startRunnel } from '../e2e/processes.mjs';

const SLOW = 200;
const SCRAPERS = 10;
const FLOODERS = 10;
const PROBE_EVERY_MS = 20;
const PROBE_BOUND_MS = 1000;
const MAX_PROBE_MS = 100;
const MAX_GROWTH_KIB = 4096;

const { values: options } = parseArgs({
  options: { seconds: { type: 'string', default: '10' }, figures: { type: 'boolean', default: false } },
});

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function rssKib(process) {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${process.child.pid}/status`, 'utf8'))[1]);
}

function get(address, path, agent) {
  return new Promise((resolve, reject) => {
    const begin = performance.now();
    const request = http.get(`http://${address}${path}`, { agent: agent ?? false, timeout: PROBE_BOUND_MS }, (response) => {
      response.resume().on('end', () => resolve({ status: response.statusCode, ms: performance.now() - begin }));
    });
    request.on('timeout', () => request.destroy(new Error(`${path} was not answered within ${PROBE_BOUND_MS} ms`)));
    request.on('error', reject);
  });
}

/** A connection that the server may end; it is opened again then, as an attacker would. */
function attack(address, stop, onConnect) {
  const [host, port] = address.split(':');
  const socket = net.connect(Number(port), host, () => onConnect(socket));
  socket.on('error', () => {});
  socket.on('data', () => {});
  socket.on('close', () => {
    if (!stop.signal.aborted) setImmediate(() => attack(address, stop, onConnect));
  });
  stop.signal.addEventListener('abort', () => socket.destroy(), { once: true });
}

function sendByteASecond(socket) {
  socket.write('GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ');
  const timer = setInterval(() => socket.write('a'), 1000);
  socket.on('close', () => clearInterval(timer));
}

const LINES = 'X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n'.repeat(64);

function sendHeadersWithoutEnd(socket) {
  socket.write('GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n');
  const more = () => {
    if (!socket.destroyed) socket.write(LINES, () => setTimeout(more, 10));
  };
  more();
}

async function measure(process) {
  const address = process.admin;
  for (let i = 0; i < 20; ++i) await get(address, '/metrics');
  const before = rssKib(process);
  const stop = new AbortController();
  // A listener for each connection is what is wanted.
  (await import('node:events')).setMaxListeners(0, stop.signal);
  for (let i = 0; i < SLOW; ++i) attack(address, stop, sendByteASecond);
  for (let i = 0; i < FLOODERS; ++i) attack(address, stop, sendHeadersWithoutEnd);
  const scraper = new http.Agent({ keepAlive: true, maxSockets: SCRAPERS });
  const latencies = [];
  let growth = 0;
  const end = performance.now() + Number(options.seconds) * 1000;
  for (let round = 0; performance.now() < end; ++round) {
    const scrapes = round % 10 === 0
      ? Array.from({ length: SCRAPERS }, () => get(address, '/metrics', scraper).catch(() => ({ status: 0 })))
      : [];
    for (const { status, ms } of await Promise.all(['/livez', '/readyz'].map((path) => get(address, path)))) {
      assert.equal(status, 200);
      latencies.push(ms);
    }
    await Promise.all(scrapes);
    growth = Math.max(growth, rssKib(process) - before);
    await pause(PROBE_EVERY_MS);
  }
  stop.abort();
  scraper.destroy();
  latencies.sort((a, b) => a - b);
  return { probes: latencies.length, median: latencies[Math.floor(latencies.length / 2)], max: latencies.at(-1), growth };
}

const runnel = await startRunnel();
try {
  for (const name of ['inference', 'sse', 'ws']) {
    const { probes, median, max, growth } = await measure(runnel[name]);
    console.log(`${name}: ${probes} probes, median ${median.toFixed(1)} ms, slowest ${max.toFixed(1)} ms; `
      + `${growth} KiB more memory`);
    if (!options.figures) continue;
    assert.ok(max < MAX_PROBE_MS, `a probe took ${max} ms`);
    assert.ok(growth < MAX_GROWTH_KIB, `the process grew by ${growth} KiB`);
  }
} finally {
  await runnel.stop();
}
