// Runs third-party clients, at pinned versions, against the real processes with the scripted engine, and prints a table
// of client and feature. Exits with status 1 if a check fails.
//
// RUNNEL_BIN is the folder of the binaries; RUNNEL_PYTHON an interpreter with the Python clients (without it they are
// skipped with a message). RUNNEL_LONG=1: 30 s of silence instead of 3, with the default heartbeat interval.
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { startRunnel } from '../e2e/processes.mjs';
import { aiSdk } from './ai_sdk.mjs';
import { langchain } from './langchain.mjs';
import { eventsource, fetchEventSource, ws } from './native_js.mjs';
import { openaiJs } from './openai_js.mjs';
import { aiSdkOpenai, openaiResponses } from './responses_js.mjs';
import { MODEL, SEED, script, stopWithin, until } from './testing.mjs';

const FEATURES = ['streaming', 'one piece', 'n = 2', 'several prompts', 'usage', 'finish', 'stop', 'tools',
  'parallel calls', 'streamed arguments', 'tool results', 'reasoning', 'images', 'all parts', 'cut call', 'several turns',
  'error before', 'error within', 'silence', 'abort', 'background, resume'];
const long = process.env.RUNNEL_LONG === '1';
const here = import.meta.dirname ?? new URL('.', import.meta.url).pathname;

const version = (name) => JSON.parse(readFileSync(join(here, 'node_modules', name, 'package.json'))).version;
const results = new Map();
function note(client, feature, error) {
  if (!results.has(client)) results.set(client, new Map());
  results.get(client).set(feature, error);
  if (error) console.error(`${client}, ${feature}: ${error}`);
}

async function runPython(runnel) {
  const child = spawn(process.env.RUNNEL_PYTHON, [join(here, 'python_clients.py')], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, RUNNEL_URL: runnel.url, RUNNEL_WS_URL: runnel.wsUrl, RUNNEL_ADMIN: runnel.inference.admin,
      RUNNEL_TEXT: runnel.text, RUNNEL_STOP: runnel.stopString, RUNNEL_SILENCE_MS: `${runnel.silenceMs}` },
  });
  const exit = new Promise((resolve) => child.on('exit', resolve));
  for await (const line of createInterface({ input: child.stdout })) {
    const { client, feature, error } = JSON.parse(line);
    note(client, feature, error);
  }
  if ((await exit) !== 0) note('Python', 'streaming', 'the clients did not run to their end');
}

function print() {
  const row = (cells) => console.log(`| ${cells.join(' | ')} |`);
  row(['', ...FEATURES]);
  row(['---', ...FEATURES.map(() => '---')]);
  for (const [client, features] of results) {
    row([client, ...FEATURES.map((name) => (!features.has(name) ? '-' : features.get(name) ? 'FAILS' : 'yes'))]);
  }
}

const runnel = await startRunnel({ bridge: long ? [] : ['--heartbeat_interval=1s'] });
let failed;
try {
  const ask = await fetch(`${runnel.url}/v1/chat/completions`, {
    method: 'POST', headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: MODEL, messages: [{ role: 'user', content: 'go' }], seed: SEED, metadata: script() }),
  });
  const text = (await ask.json()).choices[0].message.content;
  Object.assign(runnel, {
    text,
    ...stopWithin(text),
    silenceMs: long ? 30_000 : 3_000,
    running: () => until('a running generation',
      async () => (await runnel.metric(runnel.inference, 'runnel_requests_running')) > 0),
    restartBridge: async () => {
      await runnel.sse.kill('SIGKILL');
      await runnel.sse.start();
    },
  });
  const clients = [
    [`openai ${version('openai')} (JavaScript)`, openaiJs],
    [`ai ${version('ai')}, @ai-sdk/openai-compatible ${version('@ai-sdk/openai-compatible')}`, aiSdk],
    [`openai ${version('openai')} (JavaScript), responses`, openaiResponses],
    [`ai ${version('ai')}, @ai-sdk/openai ${version('@ai-sdk/openai')}`, aiSdkOpenai],
    [`@langchain/openai ${version('@langchain/openai')}`, langchain],
    [`eventsource ${version('eventsource')}`, eventsource],
    [`@microsoft/fetch-event-source ${version('@microsoft/fetch-event-source')}`, fetchEventSource],
    [`ws ${version('ws')}`, ws],
  ];
  for (const [name, make] of clients) {
    for (const [feature, check] of Object.entries(await make(runnel))) {
      note(name, feature, await check().then(() => null, (error) => error?.stack ?? `${error}`));
    }
  }
  if (process.env.RUNNEL_PYTHON) {
    await runPython(runnel);
  } else {
    console.log('skipped the Python clients: they are not installed');
  }
  print();
  failed = [...results.values()].some((features) => [...features.values()].some(Boolean));
} finally {
  await runnel.stop();
}
process.exit(failed ? 1 : 0);
