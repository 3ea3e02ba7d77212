// With a shared log a generation belongs to no replica: its key, its owner, its end and its text outlive each of them.
import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { attach, stream } from '../../bridges/web/runnel.js';
import { ClientWebSocket } from '../unit/bridges/web/fake_ws.mjs';
import { Keys, named, pause, sendAll } from './keys.mjs';
import { startRunnel } from './processes.mjs';
import { Store } from './store.mjs';

const BOUND_MS = 30_000;
const TRANSPORTS = ['sse', 'websocket', 'poll'];

function request(tokens, pace, more) {
  return {
    prompt: 'go', max_tokens: tokens, seed: 7, detach: { cancel_after_ms: null },
    metadata: { 'scripted.tokens': String(tokens), 'scripted.tokens_per_second': String(pace) }, ...more,
  };
}

/** Replicas with a shared log, and their store. `bridge`: as of startRunnel. */
async function startShared(t, { replicas = 2, sseBridges = 1, bridge = [] } = {}) {
  const store = await Store.start();
  const runnel = await startRunnel({
    replicas, sseBridges, bridge: ['--reconnect_backoff=50ms', ...bridge],
    engine: ['--engine=scripted', `--log=redis://${store.address}`],
  });
  const services = [runnel.inference, runnel.inference2, runnel.inference3].slice(0, replicas);
  t.after(async () => {
    // Their generations may run for minutes.
    await Promise.all(services.map((each) => each.kill('SIGKILL')));
    await runnel.stop();
    await store.kill();
  });
  const where = { baseUrl: runnel.url, wsUrl: runnel.wsUrl, WebSocket: ClientWebSocket, backoffCapMs: 500 };
  return { runnel, store, services, where };
}

async function until(what, condition) {
  const deadline = Date.now() + BOUND_MS;
  let seen;
  while ((seen = await condition()) !== true) {
    assert.ok(Date.now() < deadline, `${what}: ${JSON.stringify(seen)} after ${BOUND_MS} ms`);
    await pause(50);
  }
}

const isRunning = ({ child }) => child.exitCode === null && child.signalCode === null;

/** The replica that runs the only generation. */
async function ownerOf({ runnel, services }) {
  const owners = [];
  for (const each of services) if (await runnel.metric(each, 'runnel_requests_running') > 0) owners.push(each);
  assert.equal(owners.length, 1);
  return owners[0];
}

async function post(url, path, body, headers = {}) {
  const response = await fetch(url + path, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(body) });
  return { status: response.status, body: await response.json() };
}

test('one key is one generation while replicas are killed as it is sent everywhere', async (t) => {
  const { runnel, store, services } = await startShared(t, { replicas: 3, sseBridges: 3, bridge: ['--link_keepalive=1s'] });
  const keys = new Keys(runnel);
  const names = named('crowd', 60);
  let sending = true;
  let kills = 0;
  const killing = (async () => {
    for (; sending || kills < 3; kills++) {
      const victim = services[kills % services.length];
      await victim.kill('SIGKILL');
      await victim.start();
    }
  })();
  for (const way of [0, 1, 2, 3]) await Promise.all([way, way + 1, way + 2, way + 3].map((each) => sendAll(keys, names, each)));
  sending = false;
  await killing;
  const ids = keys.ids();
  await sendAll(keys, names, 1);
  assert.deepEqual(keys.ids(), ids);
  // A start that lost its key, or died before it had one, leaves nothing that runs.
  await until('as many running generations as keys', async () => {
    const running = await Promise.all(services.map((each) => runnel.metric(each, 'runnel_requests_running')));
    const sum = running.reduce((total, count) => total + count, 0);
    return sum === names.length || { running };
  });
  const known = await store.command('KEYS', '*:m');
  for (const id of ids) assert.ok(known.some((key) => key.includes(id)), id);
  t.diagnostic(`${kills} kills; ${keys.accepted} accepted; retried: ${JSON.stringify(Object.fromEntries(keys.refusals))}`);
});

test('a generation that is deleted while its owner is stopped stays deleted', async (t) => {
  const shared = await startShared(t);
  const { runnel, store } = shared;
  const { body: { id } } = await post(runnel.url, '/v1/generations', request(1000, 20));
  await until('some text', async () => (await (await fetch(`${runnel.url}/v1/generations/${id}?after=0`)).json()).last_seq > 5);
  const owner = await ownerOf(shared);
  owner.child.kill('SIGSTOP');
  t.after(() => owner.child.kill('SIGCONT'));
  await until('deleted', async () => {
    const { status } = await fetch(`${runnel.url}/v1/generations/${id}`, { method: 'DELETE' });
    return status === 204 || status === 410 || { status };
  });
  assert.equal((await fetch(`${runnel.url}/v1/generations/${id}`)).status, 410);
  owner.child.kill('SIGCONT');
  await until('the owner stops', async () => (await runnel.metric(owner, 'runnel_requests_running')) === 0);
  assert.equal((await fetch(`${runnel.url}/v1/generations/${id}`)).status, 410);
  const left = (await store.command('KEYS', `*${id}*`)).filter((key) => key.endsWith(':d'));
  assert.deepEqual(left, []);
});

test('a generation belongs to its principal on every replica', async (t) => {
  const file = join(tmpdir(), `runnel-shared-keys-${process.pid}`);
  writeFileSync(file, 'key-of-ann ann\nkey-of-bob bob\n', { mode: 0o600 });
  t.after(() => rmSync(file));
  const shared = await startShared(t, { bridge: [`--api_keys_file=${file}`] });
  const { runnel, services, where } = shared;
  const as = (key) => ({ authorization: `Bearer ${key}` });
  const refused = async (id) => {
    for (const [method, suffix] of [['GET', ''], ['GET', '/events'], ['GET', '?after=0&wait=1'], ['POST', '/cancel'], ['DELETE', '']]) {
      const response = await fetch(`${runnel.url}/v1/generations/${id}${suffix}`, { method, headers: as('key-of-bob') });
      assert.equal(response.status, 404, `${method} ${suffix}`);
      assert.equal((await response.json()).error.code, 'generation_not_found');
    }
  };
  const body = request(60, 20);
  const { body: { id } } = await post(runnel.url, '/v1/generations', body, { ...as('key-of-ann'), 'idempotency-key': 'k' });
  await (await ownerOf(shared)).kill('SIGKILL');
  // Bob comes first: he must neither read it nor take it over.
  await refused(id);
  const result = await attach(id, { ...where, token: 'key-of-ann' }).result;
  assert.equal(result.verified, true);
  for (const each of services) if (!isRunning(each)) await each.start();
  // The same key of another principal is another key.
  const { body: { id: bobs } } = await post(runnel.url, '/v1/generations', body, { ...as('key-of-bob'), 'idempotency-key': 'k' });
  assert.notEqual(bobs, id);
  for (const each of services) {
    await each.kill('SIGKILL');
    await each.start();
  }
  await refused(id);
  assert.equal((await attach(id, { ...where, token: 'key-of-ann' }).result).verified, true);
});

test('readers of a rolling update continue at once, and what has ended is read after it', async (t) => {
  const { services, where } = await startShared(t, { replicas: 3 });
  const ended = await Promise.all(Array.from({ length: 12 }, () => stream(request(50, 500), where).result));
  const readers = TRANSPORTS.flatMap((transport) =>
    Array.from({ length: 6 }, () => stream(request(400, 20), { ...where, transport })));
  await Promise.all(readers.map((reader) => reader.started));
  const began = performance.now();
  for (const each of services) {
    const [code] = await each.kill('SIGTERM');
    assert.equal(code, 0);
    await each.start();
  }
  // The generations run for 20 s: no replica has waited for the end of its own.
  const tookMs = performance.now() - began;
  assert.ok(readers.some((reader) => reader.status === 'streaming'), `the update took ${tookMs} ms`);
  const results = await Promise.all(readers.map((reader) => reader.result));
  for (const { verified, stats } of results) assert.deepEqual([verified, stats.gaps], [true, 0]);
  for (const { id, text } of ended) {
    const again = await attach(id, where).result;
    assert.deepEqual([again.verified, again.text], [true, text]);
  }
  t.diagnostic(`three replicas replaced in ${Math.round(tookMs)} ms`);
});

test('what has ended is read after every replica that has seen it was killed', async (t) => {
  const { services, where, runnel } = await startShared(t);
  const ended = await Promise.all(Array.from({ length: 12 }, (_, i) => stream(request(50, 500, { seed: i }), where).result));
  await Promise.all(services.map((each) => each.kill('SIGKILL')));
  await Promise.all(services.map((each) => each.start()));
  for (const { id, text } of ended) {
    for (const transport of TRANSPORTS) {
      const again = await attach(id, { ...where, transport }).result;
      assert.deepEqual([again.verified, again.text], [true, text]);
    }
    const snapshot = await (await fetch(`${runnel.url}/v1/generations/${id}`)).json();
    assert.equal(snapshot.status, 'done');
  }
});

test('a response that is not stored leaves nothing behind once it has ended', async (t) => {
  const { runnel, store } = await startShared(t);
  const { status, body } = await post(runnel.url, '/v1/responses', {
    model: 'scripted', input: 'go', store: false, max_output_tokens: 20, metadata: request(20, 200).metadata,
  });
  assert.equal(status, 200, JSON.stringify(body));
  const id = body.id.replace('resp_', 'gen_');
  const fence = `rnl:{${id}}:e`;
  await until('no keys of it but the fence', async () => {
    const keys = await store.command('KEYS', `*${id}*`);
    return keys.every((key) => key === fence) || keys;
  });
  // The fence is for replicas that were stopped. It has no content, and is removed after a minute.
  const entries = await store.command('XRANGE', fence, '-', '+');
  assert.ok(entries.length <= 1 && !JSON.stringify(entries).includes('"r"'), JSON.stringify(entries));
  assert.ok(await store.command('PTTL', fence) <= 60_000);
  assert.deepEqual(await store.command('KEYS', 'rnl:i:*'), []);
});
