// Two releases at the same time, as in any update: bridges of one release with a service of the other, and both with
// the runnel.js of either. Readers must not notice a difference.
import assert from 'node:assert/strict';
import test from 'node:test';
import { CheckedLog, Tally } from '../chaos/checked_log.mjs';
import { Random } from '../chaos/random.mjs';
import { Network, readToEnd } from '../chaos/reading.mjs';
import { WsConnection } from '../chaos/readers/ws.mjs';
import { webSocketClass } from '../chaos/readers/web_socket.mjs';
import { Script } from '../chaos/script.mjs';
import { freePorts, stopAll } from '../e2e/processes.mjs';
import { Balancer } from './balancer.mjs';
import { Readers } from './readers.mjs';
import { RELEASES, missing, startBridge, startService } from './skew_processes.mjs';

if (missing) console.log(`SKIPPED: ${missing}`);

const IDLE_MS = 30_000;
const DEADLINE_MS = 60_000;
const STREAMS = 40;
const KEYS = 30;
const libraries = missing ? {}
  : { old: await import(RELEASES.old.library), new: await import(RELEASES.new.library) };

/** Streams that hop between transports and bridges, and are resumed after a cursor or cancelled on the way. */
async function hop(fleet, { transports } = {}) {
  const tally = new Tally();
  const network = new Network(fleet, IDLE_MS);
  if (transports) {
    // One replica cannot serve the generations of another.
    const read = network.read.bind(network);
    network.read = (transport, what) => read(transports.includes(transport) ? transport : 'fetch', what);
  }
  await Promise.all(Array.from({ length: STREAMS }, (_, index) => {
    const random = new Random(1, `stream ${index}`);
    const tokens = random.whole(20, 120);
    const script = new Script({
      seed: index + 1, key: `key-${index}`, tokens, pace: random.pick([30, 300]), choices: random.pick([1, 1, 2]),
      ...(index % 8 === 0 && { failAt: random.whole(1, tokens) }), ...(index % 5 === 1 && { cancelAt: random.whole(2, 20) }),
    });
    return readToEnd(network, new CheckedLog(script, tally), random, { deadlineMs: DEADLINE_MS, onResume: () => {} });
  }));
  assert.deepEqual(tally.firstFaults, []);
  assert.ok(tally.hops > STREAMS / 4, `only ${tally.hops} hops`);
  assert.ok(tally.cancelled > 0 && tally.failed > 0, 'no generation was cancelled, or none failed');
}

const post = (url, path, body, headers = {}) => fetch(`${url}${path}`,
  { method: 'POST', body: JSON.stringify(body), headers: { 'content-type': 'application/json', ...headers } });

/** Starts with an idempotency key; resolves with the id, or with the status of an error. */
async function startKeyed({ url }, key, prompt = 'go') {
  const body = { prompt, max_tokens: 5, seed: 1, metadata: { 'scripted.tokens': '5' } };
  const response = await post(url, '/v1/generations', body, { 'idempotency-key': key });
  const reply = await response.json();
  return response.status === 201 ? reply.id : response.status;
}

async function keyedStarts(first, second) {
  for (let i = 0; i < KEYS; i++) {
    const key = `keyed-${first.release}-${second.release}-${i}`;
    const id = await startKeyed(first, key);
    assert.equal(typeof id, 'string', `a start under a key: ${id}`);
    assert.equal(await startKeyed(second, key), id, `the same key by ${second.name}`);
    assert.equal(await startKeyed(second, key, 'another prompt'), 422, 'the same key for something else');
  }
}

/** A cursor after the end, by each transport: the complete text, or the error that there is none. */
async function gaps({ sse, ws }) {
  const script = new Script({ seed: 3, tokens: 20, pace: 1000 });
  for (const bridge of sse) {
    const { id } = await (await post(bridge.url, '/v1/generations', script.body())).json();
    const whole = await (await fetch(`${bridge.url}/v1/generations/${id}/events?after=0`)).text();
    assert.match(whole, /event: done/);
    const gap = await (await fetch(`${bridge.url}/v1/generations/${id}/events?after=9999`)).text();
    assert.match(gap, /event: gap/);
    assert.ok(gap.includes(JSON.stringify(script.texts()[0]).slice(1, -1)), `no text in ${gap.slice(0, 300)}`);
    const failed = await fetch(`${bridge.url}/v1/generations/${id}/events?after=9999&on_gap=fail`);
    assert.equal(failed.status, 410);
    const unknown = await fetch(`${bridge.url}/v1/generations/gen_${'a'.repeat(26)}`);
    assert.equal(unknown.status, 404);
    for (const { url } of ws) {
      const connection = await WsConnection.open(url, { idleMs: IDLE_MS });
      for await (const event of connection.read({ id, after: 9999 })) {
        assert.equal(event.type, 'gap');
        assert.equal(event.snapshot.choices[0].text, script.texts()[0]);
        break;
      }
      connection.close();
    }
  }
}

/** Both libraries, by every transport and from one to the next. */
async function readWithLibraries({ sse, ws }) {
  for (const [name, { stream }] of Object.entries(libraries)) {
    for (const transport of ['sse', 'websocket', 'poll']) {
      const script = new Script({ seed: 9, tokens: 60, pace: 60 });
      const reading = stream(script.body(), { transport, baseUrl: sse[0].url, wsUrl: ws[0].url,
        WebSocket: webSocketClass(IDLE_MS), pollWaitSeconds: 1 });
      let taken = 0;
      for await (const event of reading) {
        if (++taken === 10) reading.switchTransport(transport === 'sse' ? 'websocket' : 'sse');
        if (taken === 30) reading.drop();
        assert.notEqual(event.type, 'gap');
      }
      const result = await reading.result;
      assert.ok(result.verified, `${name} runnel.js by ${transport}`);
      assert.equal(result.texts[0], script.texts()[0]);
    }
    const long = stream({ ...new Script({ seed: 9, tokens: 1000, pace: 20 }).body() },
      { transport: 'sse', baseUrl: sse[0].url, wsUrl: ws[0].url, WebSocket: webSocketClass(IDLE_MS) });
    let last;
    for await (const event of long) {
      if (event.seq === 5) long.cancel().catch(() => {});
      last = event;
    }
    assert.equal(last.choices?.[0].finish_reason, 'cancelled', `${name} runnel.js`);
    await long.result.catch(() => {});
  }
}

async function openAi({ sse }) {
  for (const { url } of sse) {
    const body = { model: 'scripted', messages: [{ role: 'user', content: 'go' }], max_tokens: 10 };
    const whole = await (await post(url, '/v1/chat/completions', body)).json();
    assert.equal(whole.usage.completion_tokens, 10);
    const streamed = await (await post(url, '/v1/chat/completions', { ...body, stream: true })).text();
    assert.match(streamed, /data: \[DONE\]\n\n$/);
    assert.ok((await (await fetch(`${url}/v1/models`)).json()).data.length > 0);
  }
}

// Reasoning, text, two calls whose tokens take turns, and a refusal.
const FOUR_KINDS = { seed: 11, metadata: {
  'scripted.parts': 'reasoning:9,text:8,call:get_weather+get_time:6,refusal:5', 'scripted.tokens_per_second': '150',
  'scripted.first_token_ms': '0',
} };

/** What releases without parts make of a response of all kinds of parts: its text, verified, and nothing of the others. */
async function fourKinds({ sse, ws }, reference) {
  const expected = await libraries.new.stream({ prompt: 'go', ...FOUR_KINDS }, { transport: 'sse', baseUrl: reference.url }).result;
  assert.deepEqual(expected.parts.map(({ kind }) => kind), ['reasoning', 'text', 'tool_call', 'tool_call', 'refusal']);
  const { text } = expected;
  assert.equal(text.split(' ').length, 8);
  for (const [name, { stream }] of Object.entries(libraries)) {
    for (const transport of ['sse', 'websocket', 'poll']) {
      // Switching and dropping attach within each kind.
      for (const at of [4, 12, 18, 27, 33]) {
        const reading = stream({ prompt: 'go', ...FOUR_KINDS }, { transport, baseUrl: sse[0].url, wsUrl: ws[0].url,
          WebSocket: webSocketClass(IDLE_MS), pollWaitSeconds: 1 });
        for await (const event of reading) {
          if (event.seq === at) reading.switchTransport(transport === 'websocket' ? 'sse' : 'websocket');
          if (event.seq === at + 1) reading.drop();
        }
        const result = await reading.result;
        const what = `${name} runnel.js by ${transport}, cut at ${at}`;
        assert.ok(result.verified, what);
        assert.deepEqual(result.texts, [text], what);
        assert.ok(reading.stats.reconnects + reading.stats.switches < 5, `${what}: ${JSON.stringify(reading.stats)}`);
      }
    }
  }
  const proto = await WsConnection.open(ws[0].url, { format: 'proto', idleMs: IDLE_MS });
  let joined = '';
  const { id } = await (await post(sse[0].url, '/v1/generations', { prompt: 'go', ...FOUR_KINDS })).json();
  for await (const event of proto.read({ id, after: 0 })) joined += event.text ?? '';
  proto.close();
  assert.equal(joined, text);
  const ask = { model: 'scripted', ...FOUR_KINDS };
  const messages = [{ role: 'user', content: 'go' }];
  const whole = await (await post(sse[0].url, '/v1/chat/completions', { ...ask, messages })).json();
  assert.equal(whole.choices[0].message.content, text);
  const chunks = await (await post(sse[0].url, '/v1/chat/completions', { ...ask, messages, stream: true })).text();
  const deltas = chunks.split('\n').filter((line) => line.startsWith('data: {')).map((line) => JSON.parse(line.slice(6)));
  assert.equal(deltas.map(({ choices: [{ delta }] }) => delta.content ?? '').join(''), text);
  // That release takes no seed for a response.
  const response = await (await post(sse[0].url, '/v1/responses', { ...ask, input: 'go' })).json();
  const kept = await (await fetch(`${reference.url}/v1/generations/${response.id.replace('resp_', 'gen_')}`)).json();
  assert.deepEqual(kept.choices[0].parts.map(({ kind }) => kind), expected.parts.map(({ kind }) => kind));
  assert.equal(response.output[0].content[0].text, kept.choices[0].text);
}

for (const [bridges, service] of [['old', 'new'], ['new', 'old']]) {
  test(`${bridges} bridges with the ${service} service`, { skip: missing, timeout: 120_000 }, async (t) => {
    const inference = await startService(service, ['--drain_timeout=3s']);
    const drain = ['--drain_timeout=2s'];
    const sse = await startBridge(bridges, 'sse', inference.address, drain);
    const ws = await startBridge(bridges, 'ws', inference.address, drain);
    t.after(() => stopAll([sse, ws, inference]));
    const fleet = { sse: [sse], ws: [ws], grpcAt: inference.address };
    await t.test('streams that hop, resume and are cancelled', () => hop(fleet));
    await t.test('starts under a key', () => keyedStarts(sse, sse));
    await t.test('gaps', () => gaps(fleet));
    await t.test('both libraries', () => readWithLibraries(fleet));
    await t.test('the routes of OpenAI', () => openAi(fleet));
    if (service === 'new') {
      const reference = await startBridge('new', 'sse', inference.address, drain);
      t.after(() => reference.stop());
      await t.test('reasoning, calls and refusals', () => fourKinds(fleet, reference));
    }
  });
}

test('bridges and replicas of both releases at the same time', { skip: missing, timeout: 120_000 }, async (t) => {
  const services = [await startService('old', ['--drain_timeout=3s']), await startService('new', ['--drain_timeout=3s'])];
  const addresses = services.map(({ address }) => address).join(',');
  const fleet = { sse: [], ws: [] };
  for (const kind of ['sse', 'ws']) {
    for (const release of ['old', 'new']) {
      fleet[kind].push(await startBridge(release, kind, addresses, ['--drain_timeout=2s']));
    }
  }
  t.after(() => stopAll([...fleet.sse, ...fleet.ws, ...services]));
  await t.test('streams that hop, resume and are cancelled',
    () => hop(fleet, { transports: ['post', 'eventsource', 'poll', 'ws', 'proto'] }));
  const [oldBridge, newBridge] = fleet.sse;
  await t.test('starts under a key, by the old bridge and again by the new one', () => keyedStarts(oldBridge, newBridge));
  await t.test('starts under a key, by the new bridge and again by the old one', () => keyedStarts(newBridge, oldBridge));
  await t.test('gaps', () => gaps(fleet));
});

// The order of deploy/README.md: the service first, then the bridges; back in reverse order.
test('an update and a rollback under live streams', { skip: missing, timeout: 240_000 }, async (t) => {
  const [listen] = await freePorts(1);
  const balancer = await Balancer.start(`127.0.0.1:${listen}`, process.env.TMPDIR ?? '/tmp');
  t.after(() => balancer.stop());
  // One address for each replica that will ever exist; rolling_update.test.mjs covers a name whose addresses change.
  const places = (await freePorts(4)).map((port) => `127.0.0.1:${port}`);
  const inference = await startService('old', ['--drain_timeout=20s', '--drain_linger=3s'], { address: places[0] });
  const running = { inference: [inference], sse: [], ws: [] };
  t.after(() => stopAll(Object.values(running).flat()));
  const addBridge = async (release, kind) => {
    const bridge = await startBridge(release, kind, places, ['--drain_timeout=2s']);
    running[kind].push(bridge);
    await balancer.add(kind, bridge.address);
  };
  for (const kind of ['sse', 'ws']) await addBridge('old', kind);

  const WebSocket = webSocketClass(IDLE_MS);
  const readers = new Readers(40, { tokens: 90, pace: 15 }, (i) => ({
    stream: libraries[i % 4 < 2 ? 'old' : 'new'].stream,
    baseUrl: balancer.url, transport: i % 2 === 0 ? 'sse' : 'websocket', WebSocket,
  }));
  t.after(() => readers.abandon());
  let place = 1;
  const rollService = async (release) => {
    const next = await startService(release, ['--drain_timeout=20s', '--drain_linger=3s'], { address: places[place++] });
    running.inference.push(next);
    await running.inference.shift().stop();
  };
  const rollBridges = async (release) => {
    await Promise.all(['sse', 'ws'].map(async (kind) => {
      await addBridge(release, kind);
      const left = running[kind].shift();
      await balancer.remove(left.address);
      await left.stop();
    }));
  };
  await rollService('new');
  await rollBridges('new');
  await rollBridges('old');
  await rollService('old');
  await readers.finish();
  for (const line of readers.report()) t.diagnostic(line);
  assert.deepEqual(readers.tally.firstFaults, []);
  assert.equal(readers.verified, readers.tally.streams);
  for (const transport of ['sse', 'websocket']) assert.ok(readers.moves[transport] >= 1, `no reader moved over ${transport}`);
});
