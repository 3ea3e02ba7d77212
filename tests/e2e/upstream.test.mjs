// The service with the upstream engine: started before its server, and with a server that rejects requests.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { MODEL, respondWithError, respondWithTokens, startFakeServer } from './fake_server.mjs';
import { freePorts, startRunnel } from './processes.mjs';

const BIN = process.env.RUNNEL_BIN;
const BOUND_MS = 60_000;
const KEY = 'sk-key-of-the-service-0123456789';
const TOKENS = ['Water ', 'runs ', 'downhill.'];
const MESSAGES = [{ role: 'user', content: 'go' }];

async function until(what, condition) {
  const deadline = Date.now() + BOUND_MS;
  // A bounded poll, because a process does not notify that it is ready.
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, what);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function probe(admin, path) {
  try {
    const response = await fetch(`http://${admin}${path}`, { signal: AbortSignal.timeout(2000) });
    return { status: response.status, text: await response.text() };
  } catch (error) {
    return { status: 0, text: error.message };
  }
}

const ask = (url, path, body) =>
  fetch(`${url}${path}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
const chat = (url, more = {}) => ask(url, '/v1/chat/completions', { model: MODEL, messages: MESSAGES, ...more });

/** The service and a bridge, neither of which has to be ready. */
async function startUnready(t, upstream, flags = []) {
  const [grpc, admin, sse, sseAdmin] = (await freePorts(4)).map((port) => `127.0.0.1:${port}`);
  const start = (name, args) => {
    const child = spawn(join(BIN, name), [...args, '--drain_notice=0s', '--drain_timeout=1s'], { stdio: 'ignore' });
    t.after(() => child.kill('SIGKILL'));
    return child;
  };
  const service = start('runnel-inference',
    [`--listen=${grpc}`, `--admin_listen=${admin}`, '--engine=upstream', `--upstream_url=${upstream}`, ...flags]);
  start('runnel-sse', [`--listen=${sse}`, `--admin_listen=${sseAdmin}`, `--inference=${grpc}`]);
  return { service, admin, sseAdmin, url: `http://${sse}` };
}

for (const flags of [[], [`--upstream_model=${MODEL}`]]) {
  test(`the service starts before its server, ${flags.length > 0 ? 'with' : 'without'} the name of a model`, async (t) => {
    const [port] = await freePorts(1);
    const { service, admin, sseAdmin, url } = await startUnready(t, `http://127.0.0.1:${port}/v1`, flags);
    await until('live', async () => (await probe(admin, '/livez')).status === 200);
    const { status, text } = await probe(admin, '/readyz');
    assert.equal(status, 503);
    assert.match(text, new RegExp(`http://127\\.0\\.0\\.1:${port}/v1/models: the connection failed`));
    await until('a live bridge', async () => (await probe(sseAdmin, '/livez')).status === 200);
    assert.equal((await probe(sseAdmin, '/readyz')).status, 503);
    const early = await chat(url);
    assert.deepEqual([early.status, (await early.json()).error.code], [503, 'service_unreachable']);

    const server = await startFakeServer((response) => respondWithTokens(response, TOKENS), port);
    t.after(() => server.close());
    await until('ready', async () => (await probe(admin, '/readyz')).status === 200);
    await until('a ready bridge', async () => (await probe(sseAdmin, '/readyz')).status === 200);
    const response = await chat(url);
    const text200 = await response.text();
    assert.equal(response.status, 200, text200);
    const { choices: [choice], usage } = JSON.parse(text200);
    assert.equal(choice.message.content, TOKENS.join(''));
    assert.deepEqual([usage.prompt_tokens, usage.completion_tokens], [3, 3]);
    const gone = once(service, 'exit');
    service.kill('SIGTERM');
    assert.deepEqual(await gone, [0, null]);
  });
}

test('a server that accepts connections and says nothing: the service is live, names the reason and can be stopped', async (t) => {
  const silent = createServer(() => {}).listen(0, '127.0.0.1');
  await once(silent, 'listening');
  t.after(() => silent.close());
  const { port } = silent.address();
  const began = Date.now();
  const { service, admin } = await startUnready(t, `http://127.0.0.1:${port}/v1`);
  await until('live', async () => (await probe(admin, '/livez')).status === 200);
  // The server is given longer than this to list its models.
  assert.ok(Date.now() - began < 5000, `live after ${Date.now() - began} ms`);
  assert.equal((await probe(admin, '/readyz')).status, 503);
  const gone = once(service, 'exit');
  const stopped = Date.now();
  service.kill('SIGTERM');
  assert.deepEqual(await gone, [0, null]);
  assert.ok(Date.now() - stopped < 5000, `stopped after ${Date.now() - stopped} ms`);
});

test('a server that goes away and comes back', async (t) => {
  const respond = (response) => respondWithTokens(response, TOKENS);
  let server = await startFakeServer(respond);
  t.after(() => server.close());
  const runnel = await startRunnel({ engine: ['--engine=upstream', `--upstream_url=${server.url}`] });
  t.after(() => runnel.stop());
  assert.equal((await chat(runnel.url)).status, 200);
  await server.close();
  const failed = await chat(runnel.url);
  assert.deepEqual([failed.status, (await failed.json()).error.code], [503, 'engine_unavailable']);
  server = await startFakeServer(respond, server.port);
  assert.equal((await (await chat(runnel.url)).json()).choices[0].message.content, TOKENS.join(''));
});

/** A server that rejects with what the test asks for in the user's message, and the processes in front of it. */
async function startRejecting(t) {
  const rejections = {
    'wrong key': (response) => respondWithError(response, 401,
      { message: `Incorrect API key provided: ${KEY}`, type: 'invalid_request_error', param: null, code: 'invalid_api_key' }),
    busy: (response) => respondWithError(response, 429,
      { message: 'Too many requests', type: 'rate_limit_error', param: null, code: 'rate_limit' }, { 'retry-after': '17' }),
    invalid: (response) => respondWithError(response, 400,
      { message: 'This model has 2048 tokens', type: 'BadRequestError', param: 'messages', code: 'context_length_exceeded' }),
  };
  const server = await startFakeServer((response, { messages, max_tokens: limit }) => {
    const rejection = rejections[messages.at(-1).content];
    if (rejection !== undefined) return rejection(response);
    if (messages.at(-1).content === 'no limit' && limit !== undefined) {
      return respondWithError(response, 400, { message: 'Unsupported parameter', type: 'invalid_request_error', param: 'max_tokens', code: null });
    }
    return respondWithTokens(response, TOKENS);
  });
  t.after(() => server.close());
  const keyFile = join(mkdtempSync(join(tmpdir(), 'runnel-upstream-key-')), 'key');
  writeFileSync(keyFile, `${KEY}\n`, { mode: 0o600 });
  const runnel = await startRunnel(
    { engine: ['--engine=upstream', `--upstream_url=${server.url}`, `--upstream_api_key_file=${keyFile}`] });
  t.after(() => runnel.stop());
  return { server, runnel };
}

test('rejections by the server', async (t) => {
  const { server, runnel } = await startRejecting(t);
  const rejected = async (content, more) => {
    const response = await chat(runnel.url, { messages: [{ role: 'user', content }], ...more });
    const text = await response.text();
    assert.ok(!text.includes(KEY), text);
    return { status: response.status, retryAfter: response.headers.get('retry-after'), ...JSON.parse(text) };
  };
  for (const more of [{}, { stream: true }]) {
    const key = await rejected('wrong key', more);
    assert.equal(key.status, 500, JSON.stringify(key));
    assert.deepEqual([key.error.code, key.error.message],
      ['engine_failed', 'the upstream rejected the API key (HTTP 401)']);
    assert.equal(server.requests.at(-1).headers.authorization, `Bearer ${KEY}`);

    const busy = await rejected('busy', more);
    assert.deepEqual([busy.status, busy.retryAfter], [429, '17']);

    const invalid = await rejected('invalid', more);
    assert.equal(invalid.status, 400);
    assert.deepEqual(invalid.error,
      { message: 'This model has 2048 tokens', type: 'BadRequestError', param: 'messages', code: 'context_length_exceeded' });
  }
});

test('a native request whose limit the server rejects is repeated once without it, and the limit is kept', async (t) => {
  const { server, runnel } = await startRejecting(t);
  const response = await ask(runnel.url, '/v1/generations', { messages: [{ role: 'user', content: 'no limit' }], max_tokens: 2 });
  const { id } = await response.json();
  let whole;
  await until('an end', async () => {
    whole = await (await fetch(`${runnel.url}/v1/generations/${id}?after=0&wait=20`)).json();
    return whole.events.at(-1).final === true;
  });
  const done = whole.events.at(-1);
  assert.deepEqual([done.type, done.choices[0].finish_reason], ['done', 'length'], JSON.stringify(done));
  const text = whole.events.filter(({ type }) => type === 'delta').map((event) => event.text).join('');
  assert.equal(text, TOKENS.slice(0, 2).join(''));
  assert.deepEqual(server.requests.map(({ body }) => body.max_tokens), [2, undefined]);
});
