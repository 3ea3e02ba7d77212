// One slow reader among many: it affects no other reader, its connection is closed in bounded time, and it can resume.
//
// RUNNEL_READERS: number of other readers (200). The figures are printed; only documented guarantees are asserted.
import assert from 'node:assert/strict';
import net from 'node:net';
import test from 'node:test';
import { CheckedLog, Tally } from './checked_log.mjs';
import { residentKb } from '../e2e/processes.mjs';
import { startFleet } from './fleet.mjs';
import { bodyText, request } from './readers/http.mjs';
import { readSse, start } from './readers/sse.mjs';
import { WsConnection, readWs } from './readers/ws.mjs';
import { Script } from './script.mjs';

const READERS = Number(process.env.RUNNEL_READERS ?? 200);
const DEADLINE_MS = 60_000;
const idleMs = 20_000;
// --max_pending_bytes, plus the batch that exceeds it.
const MOST_PENDING = (64 << 10) + (32 << 10);
const FLAGS = {
  sse: ['--heartbeat_interval=1s', '--write_timeout=2s'],
  ws: ['--ping_interval=1s', '--write_timeout=2s', '--heartbeat_interval=1s'],
};

function read(kind, bridge, what) {
  return kind === 'sse' ? readSse(bridge.url, { ...what, idleMs, style: 'fetch' })
    : readWs(bridge.url, { ...what, idleMs, format: 'json' });
}

function quantile(list, share) {
  const sorted = list.sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))].toFixed(1);
}

/** Reads to the end; records the delay of each event after its append, in milliseconds. */
async function readOne(kind, bridge, script, late) {
  const log = new CheckedLog(script, new Tally());
  const on = log.connection(kind);
  let createdAt;
  for await (const event of read(kind, bridge, { script, after: 0 })) {
    log.apply(event, on);
    if (event.type === 'started') createdAt = Date.parse(event.created_at);
    late.push(Date.now() - createdAt - event.ms);
  }
  assert.deepEqual(log.tally.firstFaults, []);
  assert.ok(log.ended);
}

async function readMany(kind, bridge, round) {
  const late = [];
  let peakKb = residentKb(bridge.child.pid);
  const watch = setInterval(() => (peakKb = Math.max(peakKb, residentKb(bridge.child.pid))), 100);
  await Promise.all(Array.from({ length: READERS }, (_, i) => readOne(kind, bridge,
    new Script({ seed: i + 1, tokens: 90, pace: 30, firstTokenMs: i * 5, key: `slow-${kind}-${round}-${i}` }), late)));
  clearInterval(watch);
  return { late, peakKb };
}

/** Polls a condition that does not notify. */
async function until(what, condition) {
  const deadline = Date.now() + DEADLINE_MS;
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, `${what}: not within ${DEADLINE_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** A socket that requests a generation and then reads nothing. `closed` resolves once it is closed. */
async function stalledReader(kind, bridge, id) {
  if (kind === 'ws') {
    const connection = await WsConnection.open(bridge.url, { idleMs: 10 * DEADLINE_MS });
    const { socket } = connection.socket;
    const reading = connection.read({ id, after: 0 })[Symbol.asyncIterator]();
    await reading.next();
    return socket.pause();
  }
  const { hostname, port } = new URL(bridge.url);
  const socket = net.connect(port, hostname);
  socket.on('error', () => {});
  socket.write(`GET /v1/generations/${id}/events HTTP/1.1\r\nhost: ${hostname}\r\n\r\n`);
  await new Promise((resolve) => socket.once('readable', resolve));
  return socket;
}

for (const kind of ['sse', 'ws']) {
  test(`${kind}: one stalled reader among ${READERS}`, async (t) => {
    const fleet = await startFleet({ bridges: 1, flags: FLAGS });
    t.after(() => fleet.stop());
    const [bridge] = fleet[kind];
    await readMany(kind, bridge, 'warm');
    // More than the kernel's buffers hold; the engine has the same work in both rounds.
    const scripts = ['without', 'beside'].map((round) =>
      new Script({ seed: 99, tokens: 1_000_000, pace: 100_000, firstTokenMs: 0, key: `slow-${kind}-${round}` }));
    await start(fleet.sse[0].url, scripts[0], { idleMs });
    const without = await readMany(kind, bridge, 'without');
    const [, script] = scripts;
    const id = await start(fleet.sse[0].url, script, { idleMs });
    let pending = 0;
    const slow = async () => {
      pending = Math.max(pending, await fleet.metric(bridge, 'runnel_pending_bytes'));
      return fleet.metric(bridge, 'runnel_slow_consumer_disconnects_total');
    };
    const stalled = await stalledReader(kind, bridge, id);
    t.after(() => stalled.destroy());
    const began = Date.now();
    let closedAfter;
    const closing = until('the stalled socket is closed', async () => (await slow()) === 1)
      .then(() => (closedAfter = Date.now() - began));
    const beside = await readMany(kind, bridge, 'beside');
    await closing;
    for (const [name, { late, peakKb }] of Object.entries({ without, beside })) {
      t.diagnostic(`${name} the stalled reader: ${late.length} events, late p50 ${quantile(late, 0.5)} ms, p99 ` +
        `${quantile(late, 0.99)} ms; bridge at most ${peakKb} KiB`);
    }
    const pauses = await fleet.metric(bridge, 'runnel_slow_consumer_pauses_total');
    t.diagnostic(`the stalled socket was closed after ${closedAfter} ms; pauses ${pauses}, ${pending} bytes pending`);
    assert.ok(pauses >= 1, 'its attachment must be paused');
    assert.ok(pending > 0 && pending <= MOST_PENDING, `${pending} bytes pending`);
    // It may hold --max_pending_bytes and one batch.
    assert.ok(beside.peakKb - without.peakKb < 4096, `${beside.peakKb - without.peakKb} KiB more`);
    await checkResumes(kind, fleet, bridge, script, id);
  });
}

/** The log is unchanged: complete and in order after any cursor of the closed reader. */
async function checkResumes(kind, fleet, bridge, script, id) {
  const log = Object.assign(new CheckedLog(script, new Tally()), { id, last: 1000, parts: script.parts(1000) });
  const on = log.connection(kind);
  for await (const event of read(kind, bridge, { script, id, after: log.last })) {
    log.apply(event, on);
    if (event.seq > 20_000) break;
  }
  assert.deepEqual(log.tally.firstFaults, []);
  const response = await request(`${fleet.sse[0].url}/v1/generations/${id}`, { method: 'DELETE', idleMs });
  assert.equal(response.statusCode, 204, await bodyText(response));
}

test('pings detect half-open WebSockets, and the readers notice too', async (t) => {
  const fleet = await startFleet({
    bridges: 1, flags: FLAGS,
    clientFaults: ['--faults=half_open', '--share=1', '--up_share=0', '--max_down_bytes=3000', '--linger=120s'],
  });
  t.after(() => fleet.stop());
  const [bridge] = fleet.ws;
  const gauge = () => fleet.metric(bridge, 'runnel_connections_active');
  const began = Date.now();
  const readings = Array.from({ length: 20 }, async (_, i) => {
    const script = new Script({ seed: i + 1, tokens: 100_000, pace: 20, key: `half-open-${i}` });
    await assert.rejects(async () => {
      const reading = readWs(bridge.url, { script, after: 0, format: 'json', idleMs: 4000 });
      for await (const event of reading) assert.ok(event);
    }, { kind: 'silence' });
  });
  await until('there are connections', async () => (await gauge()) > 0);
  await until('the bridge has let go of all of them', async () => (await gauge()) === 0);
  t.diagnostic(`20 half-open connections were gone after ${Date.now() - began} ms`);
  await Promise.all(readings);
});
