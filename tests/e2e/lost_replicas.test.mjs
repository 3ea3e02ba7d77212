// A replica is gone while its address stays, because it was killed or because its node does not respond any more: every
// reader learns that its generation is lost, on every route and transport, within a bounded time.
import assert from 'node:assert/strict';
import test from 'node:test';
import { attach, stream } from '../../bridges/web/runnel.js';
import { ClientWebSocket } from '../unit/bridges/web/fake_ws.mjs';
import { startRunnel } from './processes.mjs';

const RECOVERY_MS = 4000;
// The recovery timeout, the keepalive that notices a silent node, the tick of the bridge, and a busy machine.
const BOUND_MS = RECOVERY_MS + 12_000;
const PER_TRANSPORT = 6;
const TRANSPORTS = ['sse', 'websocket', 'poll'];

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const replicaOf = (id) => id.slice(4, 8);

const REQUEST = {
  prompt: 'go', max_tokens: 150, seed: 7, detach: { cancel_after_ms: null },
  metadata: { 'scripted.tokens': '150', 'scripted.tokens_per_second': '10' },
};

async function within(ms, promise, what) {
  let timer;
  const late = new Promise((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} was not notified within ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Plain SSE without the library. */
async function openSse(url, id) {
  const response = await fetch(`${url}/v1/generations/${id}/events`, { headers: { accept: 'text/event-stream' } });
  assert.equal(response.status, 200);
  return response;
}

/** Plain polling: the response that ends it. */
async function plainPolls(url, id) {
  for (let after = 0; ;) {
    const response = await fetch(`${url}/v1/generations/${id}?after=${after}&wait=2`);
    const body = await response.json();
    const last = body.events?.at(-1);
    if (last?.type === 'failed') return last.error.code;
    if (last?.type === 'done') return 'done';
    if (response.status !== 200 && response.status !== 503) return body.error.code;
    if (response.status === 503) {
      assert.equal(body.error.code, 'replica_unreachable');
      await pause(200);
    }
    after = body.last_seq ?? after;
  }
}

/** Status and code of each route that names a generation. */
async function routes(url, id) {
  const response = id.replace('gen_', 'resp_');
  const requests = {
    events: [`/v1/generations/${id}/events`, { headers: { accept: 'text/event-stream' } }],
    'events after a cursor': [`/v1/generations/${id}/events`, { headers: { 'last-event-id': `${id}:3` } }],
    poll: [`/v1/generations/${id}?after=0&wait=1`],
    snapshot: [`/v1/generations/${id}`],
    cancel: [`/v1/generations/${id}/cancel`, { method: 'POST' }],
    delete: [`/v1/generations/${id}`, { method: 'DELETE' }],
    response: [`/v1/responses/${response}`],
  };
  const entries = await Promise.all(Object.entries(requests).map(async ([name, [path, options]]) => {
    const response = await fetch(url + path, options);
    const body = await response.json().catch(() => null);
    return [name, [response.status, body?.error?.code]];
  }));
  return Object.fromEntries(entries);
}

async function refusalOverWebSocket(where, id) {
  const error = await attach(id, { ...where, transport: 'websocket', maxRetries: 0 }).result.catch((fault) => fault);
  const cause = error.cause ?? error;
  return [cause.status, cause.code];
}

const all = (results, expected) => Object.fromEntries(Object.keys(results).map((name) => [name, expected]));

for (const [how, signal] of [['is killed', 'SIGKILL'], ['falls silent with its node', 'SIGSTOP']]) {
  test(`a replica ${how}, and its address stays`, async (t) => {
    const runnel = await startRunnel({
      replicas: 2, bridge: [`--recovery_timeout=${RECOVERY_MS}ms`, '--link_keepalive=1s', '--reconnect_backoff=50ms'],
    });
    t.after(async () => {
      await runnel.inference2.kill('SIGKILL');
      await runnel.stop();
    });
    const where = { baseUrl: runnel.url, wsUrl: runnel.wsUrl, WebSocket: ClientWebSocket };
    const readers = TRANSPORTS.flatMap((transport) =>
      Array.from({ length: PER_TRANSPORT }, () => stream(REQUEST, { ...where, transport })));
    const ids = await Promise.all(readers.map((reader) => reader.started));
    const second = (await fetch(`http://${runnel.inference2.admin}/metrics`).then((response) => response.text()))
      .match(/runnel_queue_duration_seconds_count (\d+)/)[1];
    const groups = Map.groupBy?.(ids, replicaOf) ?? ids.reduce((map, id) =>
      map.set(replicaOf(id), [...(map.get(replicaOf(id)) ?? []), id]), new Map());
    assert.equal(groups.size, 2);

    // A stopped process cannot be waited for.
    const killed = signal === 'SIGKILL' ? runnel.inference2.kill() : runnel.inference2.child.kill(signal);
    const since = performance.now();
    // The readers that end show which of the two it was.
    const ends = await within(60_000, Promise.all(readers.map(async (reader) => {
      const error = await reader.result.then(() => null, (fault) => fault);
      return { id: reader.id, error, ms: performance.now() - since, reader };
    })), 'a reader');
    const lost = ends.filter(({ error }) => error !== null);
    assert.equal(lost.length, Number(second));
    const [prefix] = new Set(lost.map(({ id }) => replicaOf(id)));
    for (const { id, error, ms, reader } of lost) {
      assert.equal(replicaOf(id), prefix);
      assert.deepEqual([error.code, error.retryable], ['generation_lost', true], reader.transport);
      assert.ok(ms < BOUND_MS, `${reader.transport}: notified after ${ms} ms`);
    }
    assert.ok(ends.filter(({ error }) => error === null).every(({ id }) => replicaOf(id) !== prefix));
    assert.deepEqual([...new Set(lost.map(({ reader }) => reader.transport))].sort(), [...TRANSPORTS].sort());

    await killed;
    // From now on every request gets this response immediately.
    const [dead] = lost.map(({ id }) => id);
    const refusals = await within(BOUND_MS, routes(runnel.url, dead), 'a request');
    assert.deepEqual(refusals, all(refusals, [410, 'generation_lost']));
    assert.deepEqual(await refusalOverWebSocket(where, dead), [410, 'generation_lost']);
    // An unknown id stays unknown, in spite of the dead address.
    const never = `gen_${prefix === 'aaaa' ? 'bbbb' : 'aaaa'}${'a'.repeat(22)}`;
    const { 'events after a cursor': cursor, ...others } = await within(BOUND_MS, routes(runnel.url, never), 'a request');
    const { response, ...plain } = others;
    assert.deepEqual(plain, all(plain, [404, 'generation_not_found']));
    assert.deepEqual(response, [404, 'response_not_found']);
    assert.deepEqual(cursor, [410, 'generation_lost']);
    assert.deepEqual(await refusalOverWebSocket(where, never), [404, 'generation_not_found']);
    for (const bridge of [runnel.sse, runnel.ws]) {
      assert.ok(await runnel.metric(bridge, 'runnel_lost_generations_total') > 0);
    }
    t.diagnostic(`${lost.length} readers notified after ${Math.round(Math.min(...lost.map(({ ms }) => ms)))} to `
      + `${Math.round(Math.max(...lost.map(({ ms }) => ms)))} ms, with a recovery timeout of ${RECOVERY_MS} ms`);
  });
}

test('readers without the library, on a replica that stops responding', async (t) => {
  const runnel = await startRunnel({
    replicas: 2, bridge: [`--recovery_timeout=${RECOVERY_MS}ms`, '--link_keepalive=1s', '--heartbeat_interval=1s'],
  });
  t.after(async () => {
    await runnel.inference2.kill('SIGKILL');
    await runnel.stop();
  });
  const ids = await Promise.all(Array.from({ length: 8 }, async () => {
    const response = await fetch(`${runnel.url}/v1/generations`, {
      method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(REQUEST),
    });
    return (await response.json()).id;
  }));
  const streams = await Promise.all(ids.map((id) => openSse(runnel.url, id)));
  const polls = ids.map((id) => plainPolls(runnel.url, id));
  runnel.inference2.child.kill('SIGSTOP');
  // The generations of the other replica end normally; the rest belong to the silent one.
  const texts = await within(60_000, Promise.all(streams.map((response) => response.text())), 'a reader over SSE');
  const ended = texts.map((text) => (/event: failed/.test(text) ? /"code":"([a-z_]+)"/.exec(text)[1] : /event: done/.test(text) && 'done'));
  assert.deepEqual([...new Set(ended)].sort(), ['done', 'generation_lost']);
  assert.deepEqual(await within(BOUND_MS, Promise.all(polls), 'a reader that polls'), ended);
});
