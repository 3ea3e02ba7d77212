// Details of each transport, and the object that the caller holds.
import assert from 'node:assert/strict';
import test from 'node:test';
import { attach, RunnelError, stream } from '../../../../bridges/web/runnel.js';
import { FakeGeneration } from './fake_log.mjs';
import { assertWhole, collect, reached, rejection, setUp } from './testing.mjs';

test('SSE: parameters and case of the content type do not matter, nor does a byte order mark', async (t) => {
  const { server, attach, ended } = await setUp(t);
  const generation = ended();
  server.faults = [{ on: 'events', contentType: 'Text/Event-Stream; charset=utf-8', bom: true }];
  await assertWhole(attach(generation.id, 'sse'), generation);
});

test('SSE: the cursor is sent in Last-Event-ID only', async (t) => {
  const { server, attach, ended } = await setUp(t);
  const generation = ended(8);
  server.faults = [{ on: 'events', endAfter: 5 }];
  await assertWhole(attach(generation.id, 'sse'), generation);
  const [first, second] = server.requests;
  assert.equal(first.headers['last-event-id'], undefined);
  assert.equal(second.headers['last-event-id'], `${generation.id}:5`);
  assert.equal(second.url, `/v1/generations/${generation.id}/events`);
  assert.equal(second.headers.accept, 'text/event-stream');
});

test('SSE: 204 before the terminal event rereads the last event, a limited number of times', async (t) => {
  const { server, attach, ended } = await setUp(t);
  const generation = ended(8);
  server.faults = [{ on: 'events', status: 204 }];
  await assertWhole(attach(generation.id, 'sse'), generation);
  server.faults = Array.from({ length: 9 }, () => ({ on: 'events', status: 204 }));
  const error = await rejection(attach(generation.id, 'sse', { maxRetries: 3 }).result);
  assert.deepEqual([error.code, error.cause.code], ['gave_up', 'already_ended']);
});

test('SSE: retry sets the first bound of the backoff', async (t) => {
  const { server, attach, ended, clock } = await setUp(t);
  server.faults = [{ on: 'events', endAfter: 1 }];
  const generation = ended();
  await assertWhole(attach(generation.id, 'sse', { backoffBaseMs: 10 }), generation);
  assert.deepEqual(clock.slept, [50]);
});

test('HTTP: which statuses are retried, and that x-should-retry decides', async (t) => {
  const { server, attach, ended } = await setUp(t);
  const generation = ended();
  for (const status of [408, 425, 429, 500, 502, 503, 504]) {
    server.faults = [{ on: 'events', status }];
    await assertWhole(attach(generation.id, 'sse'), generation);
  }
  for (const status of [400, 401, 403, 405, 413, 415, 422, 501]) {
    server.faults = [{ on: 'events', status, body: 'not JSON' }];
    const error = await rejection(attach(generation.id, 'sse').result);
    assert.deepEqual([error.code, error.status, error.retryable], [`http_${status}`, status, false]);
  }
  server.faults = [{ on: 'events', status: 500, headers: { 'x-should-retry': 'false' } }];
  assert.equal((await rejection(attach(generation.id, 'sse').result)).code, 'overloaded');
});

test('HTTP: Retry-After as milliseconds, as a date, and capped', async (t) => {
  const { server, attach, ended, clock } = await setUp(t);
  const generation = ended();
  const busy = (headers) => ({ on: 'events', status: 503, headers });
  server.faults = [busy({ 'retry-after-ms': '40' }), busy({ 'retry-after': new Date(Date.now() - 5000).toUTCString() })];
  await assertWhole(attach(generation.id, 'sse'), generation);
  assert.deepEqual(clock.slept, [165, 250]);
  server.faults = [busy({ 'retry-after': '99999999' })];
  await assertWhole(attach(generation.id, 'sse', { maxRetryAfterMs: 3000 }), generation);
  assert.equal(clock.slept.at(-1), 3125);
});

test('HTTP: attempts share an idempotency key, starts do not', async (t) => {
  const { server, stream } = await setUp(t);
  server.onStart = () => new FakeGeneration().done();
  server.faults = [{ on: 'create', reset: true }, { on: 'create', status: 503 }];
  await stream({ prompt: 'a' }, 'sse').result;
  await stream({ prompt: 'b' }, 'sse').result;
  const keys = server.requests.map(({ headers }) => headers['idempotency-key']);
  assert.equal(keys.length, 4);
  assert.match(keys[0], /^[0-9a-f]{32}$/);
  assert.equal(new Set(keys.slice(0, 3)).size, 1);
  assert.notEqual(keys[3], keys[0]);
});

test('HTTP: switching during a start makes one generation', async (t) => {
  const { server, stream } = await setUp(t);
  server.onStart = () => new FakeGeneration().words(3).done();
  server.faults = [{ on: 'create', silent: true }];
  const response = stream({ prompt: 'a' }, 'poll');
  response.switchTransport('websocket');
  await response.result;
  assert.ok(server.starts <= 1);
});

test('HTTP: token and headers are sent', async (t) => {
  const { server, attach, ended } = await setUp(t);
  await attach(ended().id, 'sse', { token: async () => 's3cret', headers: { 'x-tenant': 'a' } }).result;
  const [{ headers }] = server.requests;
  assert.equal(headers.authorization, 'Bearer s3cret');
  assert.equal(headers['x-tenant'], 'a');
});

test('HTTP: an unreachable server is a network failure', async () => {
  const response = attach('gen_x', { baseUrl: 'http://127.0.0.1:9', maxRetries: 0 });
  const error = await rejection(response.result);
  assert.deepEqual([error.code, error.cause.code], ['gave_up', 'network']);
});

test('HTTP: a cancel is retried', async (t) => {
  const { server, attach, running } = await setUp(t);
  const generation = running(3);
  server.faults = [{ on: 'cancel', status: 503 }, { on: 'cancel', status: 502 }];
  const response = attach(generation.id, 'sse');
  await response.cancel();
  await assertWhole(response, generation, 'cancelled');
  assert.equal(server.requests.filter(({ kind }) => kind === 'cancel').length, 3);
});

test('poll: immediate empty responses do not cause a tight loop', async (t) => {
  const { server, attach, running, clock } = await setUp(t);
  const generation = running(1);
  server.pollWaitMs = 0;
  const response = attach(generation.id, 'poll');
  while (clock.slept.length < 3) await new Promise(setImmediate);
  assert.ok(clock.slept.every((ms) => ms === 250));
  generation.done();
  await assertWhole(response, generation);
});

test('WebSocket: the frames that are sent', async (t) => {
  const { server, stream } = await setUp(t);
  server.onStart = () => new FakeGeneration().words(3).done();
  server.faults = [{ on: 'ws', endAfter: 2, closeCode: 1012 }];
  const response = stream({ prompt: 'a' }, 'websocket', { token: 's3cret' });
  const { id } = await response.result;
  const frames = server.requests.filter(({ command }) => command).map(({ command }) => command);
  const { idempotency_key: key, ...generate } = frames[1];
  assert.deepEqual(frames[0], { type: 'auth', token: 's3cret' });
  assert.deepEqual(generate, { type: 'generate', req: 'c1', body: { prompt: 'a' } });
  assert.match(key, /^[0-9a-f]{32}$/);
  assert.deepEqual(frames[3], { type: 'resume', req: 'c1', gen: id, after: 2 });
  const [{ headers, url }] = server.requests;
  assert.equal(url, '/v1/ws');
  assert.equal(headers['sec-websocket-protocol'], 'runnel.v1');
});

test('WebSocket: pings when idle, and a pong keeps the connection', async (t) => {
  const { server, attach, running, clock } = await setUp(t);
  const generation = running(1);
  const response = attach(generation.id, 'websocket');
  await reached(response, 2);
  const pings = () => server.requests.filter(({ kind }) => kind === 'ws.ping').length;
  let bytes = response.stats.bytesReceived;
  for (let n = 1; n <= 8; n++) {
    clock.advance(15_000);
    while (pings() < n || response.stats.bytesReceived === bytes) await new Promise(setImmediate);
    bytes = response.stats.bytesReceived;
  }
  generation.done();
  const { stats } = await assertWhole(response, generation);
  assert.equal(stats.reconnects, 0);
});

test('WebSocket: goaway moves the reader before the deadline', async (t) => {
  const { server, attach, running, clock } = await setUp(t);
  const generation = running(2);
  server.faults = [{ on: 'ws', goawayAfter: 3 }];
  const response = attach(generation.id, 'websocket');
  await reached(response, 3);
  while (response.stats.reconnects === 0) await new Promise(setImmediate);
  generation.words(2).done();
  await assertWhole(response, generation);
  assert.deepEqual(clock.slept, [2500]);
});

test('SSE: goaway moves the reader immediately, also if the stream ends first', async (t) => {
  const { server, attach, running, clock } = await setUp(t);
  for (const fault of [{ goawayAfter: 3 }, { goawayAfter: 3, endAfter: 3 }, { goawayAfter: 3, cutAfter: 800 }]) {
    const generation = running(2);
    server.faults = [{ on: 'events', ...fault }];
    const response = attach(generation.id, 'sse');
    await reached(response, 3);
    generation.words(9);
    while (response.stats.reconnects === 0) await new Promise(setImmediate);
    assert.equal(response.lastError.code, 'goaway');
    generation.done();
    await assertWhole(response, generation);
  }
  assert.ok(!clock.slept.some((ms) => ms > 0), `it waited: ${clock.slept}`);
});

test('a socket that closes after goaway is not a failure', async (t) => {
  const { server, attach, running, clock } = await setUp(t);
  const generation = running(2);
  server.faults = [{ on: 'ws', goawayAfter: 3, endAfter: 3, closeCode: 1001 }];
  const response = attach(generation.id, 'websocket');
  await reached(response, 3);
  while (response.stats.reconnects === 0) await new Promise(setImmediate);
  assert.equal(response.lastError.code, 'goaway');
  generation.words(2).done();
  await assertWhole(response, generation);
  assert.ok(!clock.slept.some((ms) => ms > 0 && ms < 2500), `${clock.slept}`);
});

test('WebSocket: close codes that a retry would repeat are final', async (t) => {
  const { server, attach, ended } = await setUp(t);
  const generation = ended();
  for (const closeCode of [1003, 1008, 1009, 4401]) {
    server.faults = [{ on: 'ws', endAfter: 1, closeCode }];
    const error = await rejection(attach(generation.id, 'websocket').result);
    assert.deepEqual([error.code, error.retryable], [`ws_${closeCode}`, false]);
  }
  for (const closeCode of [1000, 1001, 1011, 1012, 1013, 4408, 4429, 4499]) {
    server.faults = [{ on: 'ws', endAfter: 1, closeCode }];
    await assertWhole(attach(generation.id, 'websocket'), generation);
  }
});

test('WebSocket: another subprotocol is final, a rejected handshake is retried', async (t) => {
  const { server, attach, ended } = await setUp(t);
  const generation = ended();
  server.faults = [{ on: 'ws', subprotocol: 'chat' }];
  assert.equal((await rejection(attach(generation.id, 'websocket').result)).code, 'bad_subprotocol');
  server.faults = [{ on: 'ws', status: 503 }];
  await assertWhole(attach(generation.id, 'websocket'), generation);
});

test('WebSocket: a cancel before the socket is open is sent after it has attached', async (t) => {
  const { server, attach, running } = await setUp(t);
  const generation = running(3);
  const wsUrl = `${server.url.replace('http', 'ws')}/v1/ws`;
  const response = attach(generation.id, 'websocket', { wsUrl, baseUrl: '' });
  await response.cancel();
  await assertWhole(response, generation, 'cancelled');
});

test('WebSocket: a cancel whose frame was lost is repeated over the next transport', async (t) => {
  const { server, attach, running } = await setUp(t);
  const generation = running(3);
  server.faults = [{ on: 'ws', deaf: true }];
  const response = attach(generation.id, 'websocket');
  await reached(response, 4);
  await response.cancel();
  assert.equal(generation.cancelled, false);
  response.switchTransport('sse');
  await assertWhole(response, generation, 'cancelled');
});

test('WebSocket: an error of this stream reconnects, one of another stream is ignored', async (t) => {
  const { server, attach, running } = await setUp(t);
  const generation = running(3);
  const lost = { code: 'unavailable', message: 'the service went away', status: 503 };
  server.faults = [
    { on: 'ws', lateError: { gen: generation.id, error: lost } },
    { on: 'ws', lateError: { gen: 'gen_another', error: { code: 'generation_expired', status: 410 } } },
  ];
  const response = attach(generation.id, 'websocket');
  while (response.stats.reconnects < 1 || response.status !== 'streaming') await new Promise(setImmediate);
  generation.words(2).done();
  const { stats } = await assertWhole(response, generation);
  assert.equal(stats.reconnects, 1);
});

test('unknown events are passed on and counted', async (t) => {
  const { server, attach } = await setUp(t);
  const generation = server.add(new FakeGeneration().delta('a').append({ type: 'tool', name: 'x' }).delta('b').done());
  for (const transport of ['sse', 'websocket', 'poll']) await assertWhole(attach(generation.id, transport), generation);
});

test('each choice is verified', async (t) => {
  const { server, attach } = await setUp(t);
  const generation = server.add(new FakeGeneration().delta('a', 0).delta('x', 1).delta('b', 0).delta('y', 1).done());
  const { texts, text, finishReasons } = await attach(generation.id, 'sse').result;
  assert.deepEqual([texts, text, finishReasons], [['ab', 'xy'], 'ab', ['stop', 'stop']]);
});

test('any number of iterators see all events, whenever they start', async (t) => {
  const { attach, running } = await setUp(t);
  const generation = running(3);
  const response = attach(generation.id, 'sse');
  const early = collect(response);
  await reached(response, 4);
  const middle = collect(response);
  generation.words(3).done();
  await response.result;
  const all = [await early, await middle, await collect(response)].map(({ events }) => events.map((event) => event.seq));
  for (const seqs of all) assert.deepEqual(seqs, [1, 2, 3, 4, 5, 6, 7, 8]);
});

test('another reader can continue from a cursor', async (t) => {
  const { attach, running } = await setUp(t);
  const generation = running(3);
  const first = attach(generation.id, 'sse');
  await reached(first, 4);
  first.close();
  generation.words(3).done();
  const { cursor } = first;
  const second = attach(cursor.id, 'poll', cursor);
  assert.deepEqual((await collect(second)).events.map((event) => event.seq), [5, 6, 7, 8]);
  assert.equal((await second.result).verified, true);
  assert.equal((await second.result).text, generation.choices[0]);
});

test('onStatus is called on every change', async (t) => {
  const { server, attach, ended } = await setUp(t);
  const seen = [];
  server.faults = [{ on: 'events', endAfter: 3 }];
  const response = attach(ended().id, 'sse', { onStatus: (status, source) => seen.push([status, source === response]) });
  assert.equal(response.status, 'connecting');
  await response.result;
  assert.deepEqual(seen, [['streaming', true], ['reconnecting', true], ['streaming', true], ['verified', true]]);
});

test('the caller can end a wait for the next attempt', async (t) => {
  const { server, attach, ended } = await setUp(t);
  const generation = ended();
  server.faults = [{ on: 'events', status: 503 }];
  const never = { now: () => 0, setTimer: () => () => {} };
  const response = attach(generation.id, 'sse', { clock: never });
  while (response.status !== 'reconnecting') await new Promise(setImmediate);
  response.drop();
  await assertWhole(response, generation);
});

test('invalid arguments throw immediately', () => {
  const invalid = { code: 'invalid_argument' };
  assert.throws(() => stream('a', {}), invalid);
  assert.throws(() => stream('a', { baseUrl: 'http://a', transport: 'carrier pigeon' }), invalid);
  assert.throws(() => stream('a', { baseUrl: 'http://a', transport: 'constructor' }), invalid);
  assert.throws(() => attach('', { baseUrl: 'http://a' }), invalid);
  assert.ok(new RunnelError('a', 'b') instanceof Error);
});

test('a string is the message of a user', async (t) => {
  const { server, stream } = await setUp(t);
  let body;
  server.onStart = (request) => ((body = request), new FakeGeneration().done());
  await stream('why?', 'sse').result;
  assert.deepEqual(body, { messages: [{ role: 'user', content: 'why?' }] });
});
