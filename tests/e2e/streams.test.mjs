// The three real processes, read like a program would: the same generation over every transport, and faults.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import test from 'node:test';
import { promisify } from 'node:util';
import { attach, stream } from '../../bridges/web/runnel.js';
import { startRunnel } from './processes.mjs';

const run = promisify(execFile);
const HAS_WEBSOCKET = typeof WebSocket === 'function';
const TRANSPORTS = HAS_WEBSOCKET ? ['sse', 'poll', 'websocket'] : ['sse', 'poll'];

function request(tokens, pace, more = {}) {
  return {
    messages: [{ role: 'user', content: 'go' }], max_tokens: tokens, seed: 7,
    metadata: { 'scripted.tokens': String(tokens), 'scripted.tokens_per_second': String(pace), ...more },
  };
}

async function read(generation) {
  const events = [];
  for await (const event of generation) events.push(event);
  return { events, result: await generation.result };
}

test('the same generation has the same events and text on every transport', async (t) => {
  const runnel = await startRunnel();
  t.after(() => runnel.stop());
  const where = { sseUrl: runnel.url, baseUrl: runnel.url, wsUrl: runnel.wsUrl };
  const started = stream(request(200, 400), { ...where, transport: 'sse' });
  const first = await read(started);
  assert.equal(first.result.verified, true);
  for (const transport of TRANSPORTS) {
    const again = await read(attach(started.id, { ...where, transport }));
    assert.equal(again.result.verified, true, transport);
    assert.deepEqual(again.result.texts, first.result.texts, transport);
    assert.equal(again.events.at(-1).seq, first.events.at(-1).seq);
  }
  const { stdout, stderr } = await run(join(process.env.RUNNEL_BIN, 'runnel-client'),
    [`--target=${runnel.grpc}`, `--resume=${started.id}`]);
  assert.equal(stdout, first.result.texts[0]);
  assert.match(stderr, new RegExp(`${started.id}:${first.events.at(-1).seq} verified`));
});

test('runnel-client verifies every part, and says which calls are complete', async (t) => {
  const runnel = await startRunnel();
  t.after(() => runnel.stop());
  const ask = (...flags) => run(join(process.env.RUNNEL_BIN, 'runnel-client'),
    [`--target=${runnel.grpc}`, '--seed=3', '--metadata=scripted.parts=reasoning:3;text:3;call:f+g:2;refusal:2', ...flags, 'go']);
  const { stdout, stderr } = await ask();
  assert.equal(stdout.trim().split(' ').length, 3);
  assert.match(stderr, /^\ncall call_3_0_0: f\(\{"words":"[^"]+"\}\)\ncall call_3_0_1: g\(\{"words":"[^"]+"\}\)\ngen_\w+:16 verified$/m);
  assert.match((await ask('--max_tokens=9')).stderr,
    /^\nincomplete call call_3_0_0: f\(\{"words":"[^"]+\)\nincomplete call call_3_0_1: g\(\)\ngen_\w+:11 verified$/m);
});

test('a plain event stream has ids, and ends with 204 after the last', async (t) => {
  const runnel = await startRunnel();
  t.after(() => runnel.stop());
  const created = await fetch(`${runnel.url}/v1/generations`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(request(5, 1000)),
  });
  assert.equal(created.status, 201);
  const path = created.headers.get('location');
  const response = await fetch(`${runnel.url}${path}/events`);
  assert.match(response.headers.get('content-type'), /^text\/event-stream/);
  const text = await response.text();
  assert.match(text, /^retry: \d+\nid: gen_[a-z2-7]{26}:1\nevent: started\ndata: /);
  const last = text.match(/^id: (gen_.*)$/gm).at(-1).slice(4);
  assert.match(text, /event: done\n/);
  const end = await fetch(`${runnel.url}${path}/events`, { headers: { 'last-event-id': last } });
  assert.equal(end.status, 204);
});

for (const victim of ['sse', 'ws']) {
  const transports = victim === 'sse' ? ['sse', 'poll'] : HAS_WEBSOCKET ? ['websocket'] : [];
  test(`kill -9 of the ${victim} bridge in the middle of a generation: readers reconnect and verify`,
    { skip: transports.length === 0 && 'this node has no WebSocket' }, async (t) => {
      const runnel = await startRunnel();
      t.after(() => runnel.stop());
      const where = { sseUrl: runnel.url, baseUrl: runnel.url, wsUrl: runnel.wsUrl };
      const readers = transports.flatMap((transport) =>
        Array.from({ length: 20 }, () => stream(request(300, 60), { ...where, transport })));
      const ended = new Set();
      const reading = readers.map((reader) => read(reader).finally(() => ended.add(reader)));
      // By seq, not by count, because a poll returns merged events.
      await Promise.all(readers.map(async (reader) => {
        for await (const { seq } of reader) if (seq >= 20) break;
      }));
      const cut = readers.filter((reader) => reader.transport !== 'poll' && !ended.has(reader));
      assert.ok(cut.length > 0);
      await runnel[victim].kill('SIGKILL');
      await runnel[victim].start();
      for (const [i, { result, events }] of (await Promise.all(reading)).entries()) {
        assert.equal(result.verified, true);
        // A poller may have had no request open while the bridge was away.
        if (cut.includes(readers[i])) assert.ok(result.stats.reconnects >= 1);
        assert.equal(new Set(events.map(({ seq }) => seq)).size, events.length);
      }
      assert.equal(await runnel.metric(runnel.inference, 'runnel_requests_running'), 0);
    });
}

test('SIGTERM ends every process with status 0', async () => {
  const runnel = await startRunnel();
  for (const name of ['sse', 'ws', 'inference']) assert.deepEqual(await runnel[name].kill('SIGTERM'), [0, null], name);
});
