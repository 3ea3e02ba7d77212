// The real processes at the size limits of messages: large texts and large requests affect only the client that sends
// them.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import test from 'node:test';
import { promisify } from 'node:util';
import { attach, stream } from '../../bridges/web/runnel.js';
import { startRunnel } from './processes.mjs';

const run = promisify(execFile);
const HAS_WEBSOCKET = typeof WebSocket === 'function';
const TOKENS = 850_000;
// Bounds a failure only: a lost Link is replaced after seconds.
const MAX_STALL_MS = 2_000;

const script = (tokens, pace) => ({
  'scripted.tokens': String(tokens), 'scripted.tokens_per_second': String(pace), 'scripted.first_token_ms': '0',
});
const post = (url, body) => fetch(url, {
  method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body),
});

/** Streams at 10 tokens a second: the longest pause of each, and whether its text was complete. */
function watchBystanders(where, count = 6) {
  const bystanders = Array.from({ length: count }, (_, i) =>
    stream({ prompt: 'x', seed: i + 1, max_tokens: 100_000, metadata: script(100_000, 10) },
      { ...where, transport: HAS_WEBSOCKET && i % 2 ? 'websocket' : 'sse' }));
  const stalls = bystanders.map(() => 0);
  const begun = bystanders.map(async (bystander, i) => {
    let last;
    for await (const event of bystander) {
      if (event.type !== 'delta') continue;
      const now = performance.now();
      if (last) stalls[i] = Math.max(stalls[i], now - last);
      last = now;
    }
  });
  return {
    started: Promise.all(bystanders.map((each) => each.started)),
    async stop() {
      for (const each of bystanders) each.cancel();
      await Promise.allSettled([...begun, ...bystanders.map((each) => each.result)]);
      return { stalls, bystanders };
    },
  };
}

async function startLarge(runnel) {
  const created = await post(`${runnel.url}/v1/generations`,
    { prompt: 'x', max_tokens: TOKENS, metadata: script(TOKENS, 500_000) });
  assert.equal(created.status, 201);
  const { id } = await created.json();
  for (let state = 'running'; state !== 'done';) {
    state = (await (await fetch(`${runnel.url}/v1/generations/${id}?after=900000&wait=5`)).json()).status;
  }
  return id;
}

test('a text above 4 MiB is read by snapshot, gap, poll and stream, and no other reader is affected', async (t) => {
  const runnel = await startRunnel();
  t.after(() => runnel.stop());
  const where = { sseUrl: runnel.url, baseUrl: runnel.url, wsUrl: runnel.wsUrl };
  const id = await startLarge(runnel);
  const watch = watchBystanders(where);
  await watch.started;

  const snapshot = await fetch(`${runnel.url}/v1/generations/${id}`);
  assert.equal(snapshot.status, 200);
  const whole = await snapshot.json();
  const texts = whole.choices.map(({ text }) => text);
  assert.ok(texts.join('').length > 4 << 20);
  assert.equal(whole.status, 'done');
  assert.equal(whole.usage.completion_tokens, TOKENS);

  for (const transport of HAS_WEBSOCKET ? ['sse', 'poll', 'websocket'] : ['sse', 'poll']) {
    const reader = attach(id, { ...where, transport, after: 99_999_999 });
    let gaps = 0;
    for await (const event of reader) if (event.type === 'gap') gaps++;
    const result = await reader.result;
    assert.equal(gaps, 1, transport);
    assert.equal(result.verified, true, transport);
    assert.deepEqual(result.texts, texts, transport);
  }
  const refused = await fetch(`${runnel.url}/v1/generations/${id}/events?after=99999999&on_gap=fail`);
  assert.equal(refused.status, 410);
  const { stderr } = await run(join(process.env.RUNNEL_BIN, 'runnel-client'),
    [`--target=${runnel.grpc}`, `--resume=${id}`, '--after=99999999'], { maxBuffer: 64 << 20 });
  assert.match(stderr, new RegExp(`${id}:${whole.last_seq} verified`));

  const { stalls, bystanders } = await watch.stop();
  assert.ok(Math.max(...stalls) < MAX_STALL_MS, `stalls of ${stalls.map(Math.round)} ms`);
  for (const each of bystanders) assert.equal(each.stats.reconnects, 0);
  for (const bridge of [runnel.sse, runnel.ws]) {
    assert.equal(await runnel.metric(bridge, 'runnel_link_losses_total'), 0);
  }
});

test('a request above the limit of the service gets 413, and no other reader is affected', async (t) => {
  const runnel = await startRunnel({ engine: ['--engine=scripted', '--max_request_bytes=6000000'],
    bridge: ['--max_body_bytes=16777216'] });
  t.after(() => runnel.stop());
  const where = { sseUrl: runnel.url, baseUrl: runnel.url, wsUrl: runnel.wsUrl };
  const watch = watchBystanders(where);
  await watch.started;
  const chat = (bytes) => post(`${runnel.url}/v1/chat/completions`,
    { model: 'scripted', messages: [{ role: 'user', content: 'x'.repeat(bytes) }], max_tokens: 3, metadata: script(3, 1000) });
  for (const bytes of [6_100_000, 12_000_000]) {
    const refused = await chat(bytes);
    assert.equal(refused.status, 413);
    assert.equal((await refused.json()).error.code, 'request_too_large');
  }
  assert.equal((await chat(5_900_000)).status, 200);
  const { stalls } = await watch.stop();
  assert.ok(Math.max(...stalls) < MAX_STALL_MS, `stalls of ${stalls.map(Math.round)} ms`);
  assert.equal(await runnel.metric(runnel.sse, 'runnel_link_losses_total'), 0);
});
