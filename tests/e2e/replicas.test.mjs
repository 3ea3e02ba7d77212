// Several replicas of the service behind the bridges, and generations of different principals.
import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { attach, stream } from '../../bridges/web/runnel.js';
import { startRunnel } from './processes.mjs';

function request(tokens, pace) {
  return {
    prompt: 'go', max_tokens: tokens, seed: 7,
    metadata: { 'scripted.tokens': String(tokens), 'scripted.tokens_per_second': String(pace) },
  };
}

const places = (runnel) => ({ sseUrl: runnel.url, baseUrl: runnel.url, wsUrl: runnel.wsUrl });
const replicaOf = (id) => id.slice(4, 8);

async function started(reader) {
  for await (const event of reader) if (event.type === 'started') break;
  return reader.id;
}

test('new generations go to every replica, and any bridge finds them again', async (t) => {
  const runnel = await startRunnel({ replicas: 2 });
  t.after(() => runnel.stop());
  const readers = Array.from({ length: 20 }, () => stream(request(40, 200), { ...places(runnel), transport: 'sse' }));
  const ids = await Promise.all(readers.map(started));
  assert.equal(new Set(ids.map(replicaOf)).size, 2);
  for (const reader of readers) assert.equal((await reader.result).verified, true);
  for (const id of ids) {
    const again = attach(id, { ...places(runnel), transport: 'poll' });
    assert.equal((await again.result).verified, true);
  }
});

test('starts without a reader are spread over the replicas', async (t) => {
  const runnel = await startRunnel({ replicas: 2, sseBridges: 2 });
  t.after(() => runnel.stop());
  const counts = new Map();
  const post = async (i) => {
    const response = await fetch(`${runnel.urls[i % 2]}/v1/generations`, {
      method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(request(200, 10)),
    });
    assert.equal(response.status, 201);
    const replica = replicaOf((await response.json()).id);
    counts.set(replica, (counts.get(replica) ?? 0) + 1);
  };
  for (let i = 0; i < 100; i += 10) await Promise.all(Array.from({ length: 10 }, (_, j) => post(i + j)));
  t.diagnostic(`100 starts: ${[...counts.values()].join(' and ')}`);
  assert.ok(counts.size === 2 && Math.min(...counts.values()) >= 40, `${[...counts.values()]}`);
});

test('an idempotency key starts one generation, whichever replica it reaches', async (t) => {
  const runnel = await startRunnel({ replicas: 2 });
  t.after(() => runnel.stop());
  const post = (key, body) => fetch(`${runnel.url}/v1/generations`, {
    method: 'POST', headers: { 'content-type': 'application/json', 'idempotency-key': key }, body: JSON.stringify(body),
  });
  for (const key of ['a', 'b', 'c', 'd', 'e', 'f']) {
    const ids = [];
    for (let i = 0; i < 3; ++i) ids.push((await (await post(key, request(5, 100))).json()).id);
    assert.equal(new Set(ids).size, 1);
    assert.equal((await post(key, request(6, 100))).status, 422);
  }
});

test('kill -9 of a replica: its readers are notified, the others continue, and new ones start', async (t) => {
  const runnel = await startRunnel({ replicas: 2, bridge: ['--recovery_timeout=60s'] });
  t.after(() => runnel.stop());
  const readers = Array.from({ length: 20 }, () => stream(request(100, 40), { ...places(runnel), transport: 'sse' }));
  const ids = await Promise.all(readers.map(started));
  await runnel.inference2.kill('SIGKILL');
  // The same address, another run: the logs of the first run are gone.
  await runnel.inference2.start();
  const results = await Promise.all(readers.map((reader) => reader.result.catch((error) => ({ error }))));
  const ends = new Map();
  results.forEach((result, i) => {
    const end = result.verified ? 'verified' : result.error?.code ?? result.failed?.code ?? 'other';
    ends.set(replicaOf(ids[i]), (ends.get(replicaOf(ids[i])) ?? new Set()).add(end));
  });
  assert.deepEqual([...ends.values()].map((set) => [...set]).sort(), [['generation_lost'], ['verified']]);
  const next = stream(request(5, 100), { ...places(runnel), transport: 'sse' });
  assert.equal((await next.result).verified, true);
});

test('a replica that stops responding is detected, and its readers continue when it responds again', async (t) => {
  const runnel = await startRunnel({ bridge: ['--link_keepalive=1s'] });
  t.after(() => runnel.stop());
  const readers = Array.from({ length: 10 }, () => stream(request(200, 50), { ...places(runnel), transport: 'sse' }));
  await Promise.all(readers.map(started));
  runnel.inference.child.kill('SIGSTOP');
  while (await runnel.metric(runnel.sse, 'runnel_link_losses_total') === 0) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  runnel.inference.child.kill('SIGCONT');
  for (const reader of readers) {
    const result = await reader.result;
    assert.equal(result.verified, true);
    // The bridge has handled it: the reader still has its first connection.
    assert.equal(result.stats.reconnects, 0);
  }
});

test('a generation is not found with the key of another principal', async (t) => {
  const keys = join(tmpdir(), `runnel-keys-${process.pid}`);
  writeFileSync(keys, 'key-of-ann ann\nsecond-of-ann ann\nkey-of-bob bob\n', { mode: 0o600 });
  t.after(() => rmSync(keys));
  const runnel = await startRunnel({ bridge: [`--api_keys_file=${keys}`] });
  t.after(() => runnel.stop());
  const ask = (key, path, options = {}) => fetch(runnel.url + path,
    { ...options, headers: { ...options.headers, authorization: `Bearer ${key}` } });
  const created = await ask('key-of-ann', '/v1/generations', {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(request(5, 1000)),
  });
  assert.equal(created.status, 201);
  const path = created.headers.get('location');
  assert.equal((await fetch(runnel.url + path)).status, 401);
  for (const [method, suffix] of [['GET', ''], ['GET', '/events'], ['GET', '?after=0&wait=1'], ['POST', '/cancel'],
    ['DELETE', '']]) {
    const response = await ask('key-of-bob', path + suffix, { method });
    assert.equal(response.status, 404, `${method} ${suffix}`);
    assert.equal((await response.json()).error.code, 'generation_not_found');
  }
  assert.equal((await ask('second-of-ann', path)).status, 200);
  assert.match(await (await ask('key-of-ann', `${path}/events`)).text(), /event: done/);
  assert.equal((await ask('second-of-ann', path, { method: 'DELETE' })).status, 204);
  assert.equal((await ask('key-of-ann', path)).status, 410);
  assert.equal((await ask('key-of-bob', path)).status, 404);
});
