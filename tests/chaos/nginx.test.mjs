// Behind nginx: streams arrive complete with every setting, without delay with the documented ones, and silent streams
// are not cut.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import http2 from 'node:http2';
import test, { after, before } from 'node:test';
import { stream } from '../../bridges/web/runnel.js';
import { CheckedLog, Tally } from './checked_log.mjs';
import { Break } from './faults.mjs';
import { startFleet } from './fleet.mjs';
import { startNginx } from './nginx.mjs';
import { readPoll } from './readers/poll.mjs';
import { parse, readSse, start } from './readers/sse.mjs';
import { readWs } from './readers/ws.mjs';
import { Script } from './script.mjs';

// For the fetch of runnel.js: this test makes the certificate.
process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';
const idleMs = 30_000;
const skip = !existsSync('/usr/sbin/nginx') && 'nginx was not found';
const PROXIES = ['plain', 'buffering', 'documented', 'http2'];
const READERS = {
  fetch: (at, what) => readSse(at.url, { ...what, idleMs, style: 'fetch' }),
  eventsource: (at, what) => readSse(at.url, { ...what, idleMs, style: 'eventsource' }),
  poll: (at, what) => readPoll(at.url, { ...what, idleMs }),
  ws: (at, what) => readWs(at.wsUrl, { ...what, idleMs, format: 'json' }),
  proto: (at, what) => readWs(at.wsUrl, { ...what, idleMs, format: 'proto' }),
};
let fleet;
let nginx;
let next = 0;

before(async () => {
  if (skip) return;
  fleet = await startFleet({
    bridges: 1, flags: { sse: ['--heartbeat_interval=1s'], ws: ['--heartbeat_interval=1s'] },
  });
  nginx = await startNginx({ sse: fleet.sse[0], ws: fleet.ws[0] });
});
after(async () => {
  await nginx?.stop();
  await fleet?.stop();
});

function scriptOf(more) {
  return new Script({ seed: 7000 + next, tokens: 60, pace: 60, firstTokenMs: 50, key: `nginx-${next++}`, ...more });
}

async function readWhole(read, at, script) {
  const log = new CheckedLog(script, new Tally());
  const on = log.connection(read);
  let firstAt;
  let doneAt;
  for await (const event of READERS[read](at, { script, after: 0 })) {
    firstAt ??= Date.now();
    log.apply(event, on);
    if (event.type === 'started') doneAt = Date.parse(event.created_at);
    if (event.type === 'done') doneAt += event.ms;
  }
  assert.deepEqual(log.tally.firstFaults, [], read);
  assert.ok(log.ended, `${read}: cut`);
  // Whether the first event arrived before the last was generated.
  return { early: firstAt < doneAt };
}

for (const name of PROXIES) {
  test(`${name}: streams arrive complete`, { skip }, async () => {
    await Promise.all(Object.keys(READERS).map((read) => readWhole(read, nginx.at[name], scriptOf())));
    // Including one that is larger than all buffers of the proxy.
    await Promise.all(Object.keys(READERS).map((read) =>
      readWhole(read, nginx.at[name], scriptOf({ tokens: 30_000, pace: 20_000 }))));
  });
}

for (const name of ['plain', 'documented', 'http2']) {
  test(`${name}: the first bytes arrive although nothing follows them`, { skip }, async () => {
    // The script never sends a token, so nothing that follows can push the first bytes through.
    for (const read of ['fetch', 'eventsource', 'ws', 'proto']) {
      for await (const event of READERS[read](nginx.at[name], { script: scriptOf({ stallAt: 0 }), after: 0 })) {
        assert.equal(event.type, 'started', `${name} ${read}`);
        break;
      }
    }
  });
}

test('buffering: a short stream is held back to its end, but arrives complete', { skip }, async () => {
  const { early } = await readWhole('fetch', nginx.at.buffering, scriptOf({ tokens: 10, pace: 10 }));
  assert.equal(early, false);
  assert.equal((await readWhole('fetch', nginx.at.documented, scriptOf({ tokens: 10, pace: 10 }))).early, true);
});

/** What runnel.js reports for one evenly paced generation, as `transport cause`. */
async function buffered(name) {
  const notices = [];
  const reading = stream(scriptOf({ tokens: 40, pace: 8 }).body(), {
    baseUrl: nginx.at[name].url, transport: 'sse', onNotice: (notice) => notices.push(notice),
  });
  assert.equal((await reading.result).verified, true);
  return notices.filter(({ type }) => type === 'buffered').map(({ transport, cause }) => `${transport} ${cause}`);
}

test('buffering: runnel.js notices that tokens are held back', { skip }, async () => {
  let heard = [];
  // On a machine so busy that the bridge merges tokens, the detector has no evidence: then the next generation is
  // tried.
  for (let attempt = 0; attempt < 5 && heard.length === 0; attempt++) heard = await buffered('buffering');
  assert.deepEqual(heard, ['sse bursts']);
});

test('with the other settings it reports nothing', { skip }, async () => {
  const heard = await Promise.all(['plain', 'documented', 'http2'].map(buffered));
  assert.deepEqual(heard, [[], [], []]);
});

test('a silent prefill, three times as long as the timeout of the proxy, is not cut', { skip }, async () => {
  const script = () => scriptOf({ tokens: 5, firstTokenMs: 9000 });
  await Promise.all(Object.keys(READERS).map((read) => readWhole(read, nginx.at.impatient, script())));
});

test('without heartbeats it is cut', { skip }, async (t) => {
  const silent = await startFleet({ bridges: 1, flags: { sse: ['--heartbeat_interval=60s'] } });
  const proxy = await startNginx({ sse: silent.sse[0], ws: silent.ws[0] });
  t.after(async () => {
    await proxy.stop();
    await silent.stop();
  });
  const script = scriptOf({ tokens: 5, firstTokenMs: 60_000 });
  await assert.rejects(async () => {
    for await (const { type } of READERS.fetch(proxy.at.impatient, { script, after: 0 })) assert.equal(type, 'started');
  }, (error) => error instanceof Break && !error.silent);
});

test('http2: 50 streams on one connection', { skip }, async () => {
  const session = http2.connect(nginx.at.http2.url, { rejectUnauthorized: false });
  await Promise.all(Array.from({ length: 50 }, async () => {
    const script = scriptOf();
    const id = await start(fleet.sse[0].url, script, { idleMs });
    const log = Object.assign(new CheckedLog(script, new Tally()), { id });
    const on = log.connection('http2');
    const stream = session.request({ ':path': `/v1/generations/${id}/events` });
    for await (const { data } of parse(stream)) log.apply(JSON.parse(data), on);
    assert.deepEqual(log.tally.firstFaults, []);
    assert.ok(log.ended);
  }));
  session.close();
});
