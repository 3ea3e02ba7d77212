// Real inference servers behind the upstream engine and the SSE bridge. With greedy sampling, each response has the text,
// the finish reason and the usage that the server gives directly. Run by real_servers.sh, which installs the servers;
// skipped without RUNNEL_REAL_SERVERS. Prints a row of a table for each server.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { freePorts, startRunnel } from '../e2e/processes.mjs';

const { RUNNEL_REAL_SERVERS, RUNNEL_LLAMA_SERVER, RUNNEL_XLLAMACPP, RUNNEL_PEER, RUNNEL_PEER_PATH, RUNNEL_MODEL } = process.env;
const READY_MS = 120_000;
const MODEL = 'real-model';
const here = import.meta.dirname ?? new URL('.', import.meta.url).pathname;
const FEATURES = ['chat', 'completion', 'stop', 'usage', 'logprobs', 'cancel', 'prompt too long', 'unknown model', 'reuse'];

const SERVERS = {
  'llama-server (llama.cpp of llama-cpp-python 0.3.36)': RUNNEL_LLAMA_SERVER && ((port) => [RUNNEL_LLAMA_SERVER,
    ['-m', RUNNEL_MODEL, '--host', '127.0.0.1', '--port', port, '-a', MODEL, '-c', '2048', '-np', '1', '-t', '1', '--no-warmup']]),
  'xllamacpp 2026.10.11549': RUNNEL_XLLAMACPP && ((port) => [RUNNEL_XLLAMACPP, [join(here, 'xllamacpp_server.py'), RUNNEL_MODEL, port]]),
  'llama_cpp.server (llama-cpp-python 0.3.36)': RUNNEL_PEER && RUNNEL_PEER_PATH && ((port) => [RUNNEL_PEER,
    ['-m', 'llama_cpp.server', '--model', RUNNEL_MODEL, '--model_alias', MODEL, '--host', '127.0.0.1', '--port', port, '--n_ctx', '2048',
      // Otherwise the same request gives another text when its prompt is cached.
      ...'--n_threads 1 --n_threads_batch 1 --n_batch 60 --n_ubatch 60 --flash_attn true --logits_all false'.split(' ')],
  { PYTHONPATH: RUNNEL_PEER_PATH }]),
};

async function startServer(command) {
  const [port] = await freePorts(1);
  const [path, args, env] = command(String(port));
  const log = join(mkdtempSync(join(tmpdir(), 'runnel-real-')), 'server.log');
  const child = spawn(path, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  for (const stream of [child.stdout, child.stderr]) stream.pipe(createWriteStream(log, { flags: 'a' }));
  const url = `http://127.0.0.1:${port}/v1`;
  const deadline = Date.now() + READY_MS;
  // A bounded poll, because a server does not notify that it is ready.
  while (!(await fetch(`${url}/models`).then(({ ok }) => ok, () => false))) {
    if (child.exitCode !== null || Date.now() > deadline) throw new Error(`it did not start:\n${readFileSync(log, 'utf8')}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return { url, port, async stop() {
    if (child.exitCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  } };
}

const GREEDY = { model: MODEL, temperature: 0, max_tokens: 24 };
const CHAT = { ...GREEDY, messages: [{ role: 'system', content: 'You answer in one short sentence.' }, { role: 'user', content: 'Why is the sky blue?' }] };
const COMPLETION = { ...GREEDY, prompt: 'Once upon a time' };
const LONG = 'word '.repeat(4000);

const post = (url, path, body, signal) => fetch(`${url}${path}`,
  { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body), signal });

/** Text, finish reason, usage and tokens with their scores of a response, streamed or not. */
async function ask(url, path, body) {
  const response = await post(url, path, body);
  if (!body.stream) {
    const { choices, usage, error } = await response.json();
    const [choice] = choices ?? [{}];
    return { status: response.status, error, text: choice.message?.content ?? choice.text, finish: choice.finish_reason, usage,
      logprobs: choice.logprobs?.content };
  }
  const result = { status: response.status, text: '', logprobs: [] };
  for (const [, data] of (await response.text()).matchAll(/^data: (.*)$/gm)) {
    if (data === '[DONE]') {
      result.done = true;
      continue;
    }
    const { choices, usage, error } = JSON.parse(data);
    Object.assign(result, error && { error }, usage && { usage });
    for (const choice of choices ?? []) {
      result.text += choice.delta?.content ?? choice.text ?? '';
      result.finish = choice.finish_reason ?? result.finish;
      result.logprobs.push(...(choice.logprobs?.content ?? []));
    }
  }
  return result;
}

const pick = ({ text, finish }) => ({ text, finish });
const counts = ({ prompt_tokens: prompt, completion_tokens: completion }) => ({ prompt, completion });

/** The checks of one server by feature; each throws, or returns a note. */
function checksOf(server, runnel) {
  const both = async (path, body) => {
    const direct = await ask(server.url, path, body);
    const streamed = await ask(`${runnel.url}/v1`, path, { ...body, stream: true, stream_options: { include_usage: true } });
    const whole = await ask(`${runnel.url}/v1`, path, body);
    assert.equal(streamed.done, true, JSON.stringify(streamed));
    assert.ok(direct.text.length > 0);
    assert.deepEqual(pick(streamed), pick(direct));
    assert.deepEqual(pick(whole), pick(direct));
    return { direct, streamed, whole };
  };
  const metric = (name) => runnel.metric(runnel.inference, name);
  const until = async (condition) => {
    const deadline = Date.now() + READY_MS;
    while (!(await condition())) {
      assert.ok(Date.now() < deadline);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  const rejected = async (body) => {
    const direct = await ask(server.url, '/chat/completions', body);
    const own = await post(server.url, '/chat/completions', { ...body, stream: true });
    const cut = await own.text().then((text) => !text.includes('[DONE]'), () => true);
    const through = await ask(`${runnel.url}/v1`, '/chat/completions', body);
    if (own.status === 200 && cut) {
      assert.deepEqual([through.status, through.error.code], [503, 'engine_unavailable']);
      return '503: the server cuts its stream';
    }
    const streamed = await post(`${runnel.url}/v1`, '/chat/completions', { ...body, stream: true });
    assert.equal(through.status, direct.status, JSON.stringify({ direct, through }));
    assert.equal(streamed.status, direct.status);
    assert.ok(direct.error.message.startsWith(through.error.message.slice(0, 100)), JSON.stringify({ direct, through }));
    return `${direct.status}`;
  };
  return {
    chat: async () => void await both('/chat/completions', CHAT),
    completion: async () => void await both('/completions', COMPLETION),
    stop: async () => {
      const { direct } = await both('/chat/completions', CHAT);
      const stop = direct.text.trim().split(' ')[3];
      const stopped = await both('/chat/completions', { ...CHAT, stop: [stop] });
      assert.ok(!stopped.streamed.text.includes(stop) && stopped.streamed.finish === 'stop');
    },
    usage: async () => {
      const { direct, streamed, whole } = await both('/chat/completions', CHAT);
      assert.deepEqual(counts(whole.usage), counts(streamed.usage));
      const own = await ask(server.url, '/chat/completions', { ...CHAT, stream: true, stream_options: { include_usage: true } });
      if (own.usage !== undefined) assert.deepEqual(counts(streamed.usage), counts(direct.usage));
      return own.usage === undefined ? 'none in streams: counted here' : 'the server\'s';
    },
    logprobs: async () => {
      const body = { ...CHAT, logprobs: true, top_logprobs: 1 };
      const direct = await ask(server.url, '/chat/completions', body);
      const through = await ask(`${runnel.url}/v1`, '/chat/completions', { ...body, stream: true });
      const tokens = ({ logprobs }) => (logprobs ?? []).map(({ token }) => token);
      assert.deepEqual(tokens(through), tokens(direct), JSON.stringify(through).slice(0, 500));
      return tokens(direct).length > 0 ? undefined : 'none';
    },
    cancel: async () => {
      const abort = new AbortController();
      const before = await metric('runnel_cancels_total');
      const response = await post(`${runnel.url}/v1`, '/chat/completions', { ...CHAT, max_tokens: 1500, stream: true }, abort.signal);
      await response.body.getReader().read();
      abort.abort();
      await until(async () => await metric('runnel_cancels_total') > before && await metric('runnel_upstream_streams_active') === 0);
      // The server is free again for the next request.
      await both('/completions', COMPLETION);
    },
    'prompt too long': () => rejected({ ...CHAT, messages: [{ role: 'user', content: LONG }] }),
    'unknown model': async () => {
      const direct = await ask(server.url, '/chat/completions', { ...CHAT, model: 'unknown' });
      const through = await ask(`${runnel.url}/v1`, '/chat/completions', { ...CHAT, model: 'unknown' });
      assert.deepEqual([through.status, through.error.code], [404, 'model_not_found']);
      return `404 here, ${direct.status} from the server`;
    },
    reuse: async () => {
      const idleAfterOne = async () => {
        await ask(`${runnel.url}/v1`, '/completions', { ...COMPLETION, max_tokens: 2 });
        await until(async () => await metric('runnel_upstream_streams_active') === 0);
        return metric('runnel_upstream_idle_connections');
      };
      const idle = await idleAfterOne();
      for (let i = 0; i < 3; i++) assert.equal(await idleAfterOne(), idle);
      return idle > 0 ? undefined : 'no: the server closes';
    },
  };
}

for (const [name, command] of Object.entries(SERVERS)) {
  const skip = (!RUNNEL_REAL_SERVERS && 'RUNNEL_REAL_SERVERS is not set') || (!(command && RUNNEL_MODEL) && 'not installed');
  test(name, { skip, timeout: 600_000 }, async (t) => {
    const server = await startServer(command);
    t.after(() => server.stop());
    const runnel = await startRunnel(
      { engine: ['--engine=upstream', `--upstream_url=${server.url}`, `--upstream_models=${MODEL}=${MODEL}`] });
    t.after(() => runnel.stop());
    const notes = {};
    for (const [feature, check] of Object.entries(checksOf(server, runnel))) {
      await t.test(feature, async () => {
        notes[feature] = 'FAILS';
        notes[feature] = await check() ?? 'yes';
      });
    }
    console.log(`| ${name} | ${FEATURES.map((feature) => notes[feature]).join(' | ')} |`);
  });
}
