// llama.cpp's OpenAI server as a peer: the same prompts with greedy sampling give the same text from the peer directly,
// through the upstream engine, and from the llama engine with the same model.
//
// RUNNEL_PEER is a Python interpreter with the server's dependencies, RUNNEL_PEER_PATH the folder of the llama_cpp
// package with its library, RUNNEL_MODEL the model. Without them the test is skipped.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, mkdtempSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { stream } from '../../bridges/web/runnel.js';
import { startRunnel } from '../e2e/processes.mjs';

const { RUNNEL_PEER, RUNNEL_PEER_PATH, RUNNEL_MODEL } = process.env;
const HAVE_PEER = Boolean(RUNNEL_PEER && RUNNEL_PEER_PATH && RUNNEL_MODEL);
const READY_MS = 120_000;
const MAX_TOKENS = 32;

// The template of this model adds a system message if there is none: every other question is asked without one.
const SYSTEM = { role: 'system', content: 'You answer in one short sentence.' };
const QUESTIONS = [
  'What is the capital of France?', 'Name three primary colours.', 'How many legs has a spider?',
  'Why is the sky blue?', 'Who wrote Hamlet?', 'What is 7 times 8?', 'Say hello in Spanish.',
  'What do bees make?', 'Name a planet with rings.', 'What is the opposite of hot?', 'Where do penguins live?',
  'What is water made of?', 'Name the largest ocean.', 'How many days has a week?', 'What is a haiku?',
  'Give me a rhyme for "light".', 'What is the boiling point of water?', 'Name a fruit that is yellow.',
  'What does a compiler do?', 'Écris « bonjour » en anglais, puis 東京.',
];

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

// With the threads, rows and attention of the exact llama engine, so that the logits are the same to the last bit.
const SAME_ARITHMETIC = ['--n_threads', '1', '--n_threads_batch', '1', '--n_batch', '60', '--n_ubatch', '60',
  '--flash_attn', 'true', '--logits_all', 'false'];

async function startPeer() {
  const port = await freePort();
  const log = join(mkdtempSync(join(tmpdir(), 'runnel-peer-')), 'peer.log');
  const out = createWriteStream(log);
  const child = spawn(RUNNEL_PEER, ['-m', 'llama_cpp.server', '--model', RUNNEL_MODEL, '--model_alias', 'peer-model',
    '--host', '127.0.0.1', '--port', String(port), '--n_ctx', '2048', ...SAME_ARITHMETIC],
  { env: { ...process.env, PYTHONPATH: RUNNEL_PEER_PATH }, stdio: ['ignore', 'pipe', 'pipe'] });
  child.stdout.pipe(out);
  child.stderr.pipe(out);
  const url = `http://127.0.0.1:${port}/v1`;
  const deadline = Date.now() + READY_MS;
  // A bounded poll, because the peer does not notify that it is ready.
  while (!(await fetch(`${url}/models`).then((response) => response.ok, () => false))) {
    if (child.exitCode !== null || Date.now() > deadline) {
      throw new Error(`the peer did not become ready:\n${readFileSync(log, 'utf8')}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return {
    url,
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const gone = once(child, 'exit');
      child.kill('SIGKILL');
      await gone;
    },
  };
}

const messagesOf = (question) => [...(QUESTIONS.indexOf(question) % 2 === 0 ? [SYSTEM] : []), { role: 'user', content: question }];

async function askPeer(peer, question, more = {}) {
  const response = await fetch(`${peer.url}/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      model: 'peer-model', messages: messagesOf(question), temperature: 0, max_tokens: MAX_TOKENS, ...more,
    }),
  });
  assert.equal(response.status, 200);
  const { choices, usage } = await response.json();
  return { text: choices[0].message.content, finish: choices[0].finish_reason, usage };
}

async function askRunnel(runnel, question) {
  const generation = stream({ messages: messagesOf(question), temperature: 0, max_tokens: MAX_TOKENS },
    { sseUrl: runnel.url, baseUrl: runnel.url, transport: 'sse' });
  const events = [];
  for await (const event of generation) events.push(event);
  const result = await generation.result;
  assert.equal(result.verified, true);
  const done = events.at(-1);
  return { text: result.texts[0], finish: done.choices[0].finish_reason, usage: done.usage };
}

test('the peer directly, through the upstream engine, and the llama engine give the same text',
  { skip: !HAVE_PEER && 'no peer or no model' }, async (t) => {
    const peer = await startPeer();
    t.after(() => peer.stop());
    const engines = [
      { engine: ['--engine=upstream', `--upstream_url=${peer.url}`], more: {} },
      // By default the peer applies a penalty, which the llama engine does not.
      { engine: ['--engine=llama', `--model=${RUNNEL_MODEL}`, '--llama_sequences=2'], more: { repeat_penalty: 1 } },
    ];
    for (const { engine, more } of engines) {
      const runnel = await startRunnel({ engine });
      t.after(() => runnel.stop());
      for (const question of QUESTIONS) {
        const direct = await askPeer(peer, question, more);
        const response = await askRunnel(runnel, question);
        assert.ok(direct.text.length > 0);
        assert.equal(response.text, direct.text, `${engine[0]}: ${question}`);
        assert.equal(response.finish, direct.finish, `${engine[0]}: ${question}`);
        // The peer's stream has no usage, so a generation through it has none either.
        if (engine[0] === '--engine=llama') assert.equal(response.usage.prompt_tokens, direct.usage.prompt_tokens, question);
      }
      await runnel.stop();
    }
  });

test('a peer that dies during a response fails the generation, and the text so far remains',
  { skip: !HAVE_PEER && 'no peer or no model' }, async (t) => {
    const peer = await startPeer();
    t.after(() => peer.stop());
    const runnel = await startRunnel({ engine: ['--engine=upstream', `--upstream_url=${peer.url}`] });
    t.after(() => runnel.stop());
    const generation = stream({ messages: messagesOf('Count from one to a hundred.'), temperature: 0, max_tokens: 1000 },
      { sseUrl: runnel.url, baseUrl: runnel.url, transport: 'sse' });
    let deltas = 0;
    let last;
    const read = async () => {
      for await (const event of generation) {
        last = event;
        if (event.type === 'delta' && ++deltas === 3) await peer.stop();
      }
    };
    await read().catch(() => {});
    assert.ok(deltas >= 3);
    assert.equal(last.type, 'failed');
    assert.equal(last.error.code, 'engine_unavailable');
    assert.equal(last.error.retryable, true);
  });
