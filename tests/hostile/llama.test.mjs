// Requests that are too expensive for the llama engine, and what one tenant can learn about another.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { KEYS, suite } from './arena.mjs';
import { SLACK, pause } from './raw.mjs';
import { SelfChecked } from './self_checked.mjs';

const writer = join(process.env.RUNNEL_BIN ?? '', 'runnel-test-model');
const DRAIN_S = 3;

const nestedArrays = (depth, items) => (depth === 0 ? { type: 'integer' }
  : { type: 'array', minItems: 0, maxItems: items, items: nestedArrays(depth - 1, items) });

/** Small schemas whose grammar, or a step through it, is large. */
const SCHEMAS = {
  'a nullable in two repetitions': { type: 'string', pattern: '^((a?){100}){100}$' },
  'the same, larger': { type: 'string', pattern: '^((a?){2000}){2000}$' },
  'a repeated nullable': { type: 'string', pattern: '^(a?){80}$' },
  'a nullable repeated more often': { type: 'string', pattern: '^(a?){1000}$' },
  'three levels of repetitions': { type: 'string', pattern: '^(((a?){30}){30}){30}$' },
  'alternatives in repetitions': { type: 'string', pattern: '^((a|b|ab){0,60}){0,60}$' },
  'optional repetitions in a row': { type: 'string', pattern: `^${'(a?){40}'.repeat(40)}$` },
  'arrays of arrays': nestedArrays(3, 200),
  'a long least length': { type: 'string', minLength: 60000, maxLength: 60000 },
  'many values': { enum: Array.from({ length: 20000 }, (_, i) => `value ${i}`) },
  'many optional properties': { type: 'object', additionalProperties: false,
    properties: Object.fromEntries(Array.from({ length: 500 }, (_, i) => [`p${i}`, { type: 'string' }])) },
  'a schema that refers to itself': { $ref: '#/$defs/a',
    $defs: { a: { anyOf: [{ $ref: '#/$defs/a' }, { type: 'null' }] } } },
};

async function chat(address, key, body, ms = 60_000) {
  const response = await fetch(`http://${address}/v1/chat/completions`, {
    method: 'POST', signal: AbortSignal.timeout(ms * SLACK),
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'm', max_tokens: 16, temperature: 0, ...body }),
  });
  return { status: response.status, body: await response.json() };
}

const say = (content) => [{ role: 'user', content }];
const held = (schema) => ({ messages: say('Go.'),
  response_format: { type: 'json_schema', json_schema: { name: 'a', schema } } });

function startOptions() {
  const model = join(mkdtempSync(join(tmpdir(), 'runnel-hostile-')), 'model.gguf');
  execFileSync(writer, [model]);
  const inference = ['--engine=llama', `--model=${model}`, '--model_id=m', '--llama_chat_template=chatml',
    '--llama_threads=1', '--llama_context=2048'];
  return { flags: { inference }, counts: { sse: 2, ws: 2 },
    makeLog: (seed, tally) => new SelfChecked({ seed, tokens: 100 }, tally), restMs: 500 };
}

if (!existsSync(writer)) {
  test('the llama engine', { skip: 'built without llama.cpp' });
} else {
  const options = startOptions();
  suite('the llama engine', options, async (attack, arena) => {
    const { address } = arena.sse;

    for (const [name, schema] of Object.entries(SCHEMAS)) {
      await attack(`a schema: ${name}`, async () => {
        const before = arena.residentKb(arena.inference);
        const { status, body } = await chat(address, KEYS.attacker, held(schema), 10_000);
        // Rejected, ended by its budget with a specific code, or completed: each within the time limit.
        if (status !== 200) assert.notEqual(body.error?.code ?? body.error?.message, undefined, JSON.stringify(body));
        assert.ok([200, 400, 422, 500, 503].includes(status), `status ${status}`);
        const grown = arena.residentKb(arena.inference) - before;
        if (SLACK === 1) assert.ok(grown < 256 << 10, `${grown} KiB more`);
        const plain = await chat(address, KEYS.bystander, { messages: say('Hello') }, 5000);
        assert.equal(plain.status, 200);
      });
    }

    await attack('all schemas at the same time, whose clients disconnect', async () => {
      const left = new AbortController();
      const requests = Object.values(SCHEMAS).map((schema) => fetch(`http://${address}/v1/chat/completions`, {
        method: 'POST', signal: left.signal,
        headers: { authorization: `Bearer ${KEYS.attacker}`, 'content-type': 'application/json' },
        body: JSON.stringify({ model: 'm', max_tokens: 1000, ...held(schema) }),
      }).catch(() => {}));
      await pause(1000);
      left.abort();
      await Promise.all(requests);
      const plain = await chat(address, KEYS.bystander, { messages: say('Hello again') }, 10_000);
      assert.equal(plain.status, 200);
    });

    await attack('guesses of the prompt of another tenant', async () => {
      const secret = `The patient Anna Example, born 1970, room 12, has ${'a long history, '.repeat(20)}and takes lithium.`;
      const usage = async (key, content) => {
        const { status, body } = await chat(address, key, { messages: say(content), max_tokens: 1 });
        assert.equal(status, 200);
        return body.usage;
      };
      const cached = async (key, content) => (await usage(key, content)).prompt_tokens_details?.cached_tokens ?? 0;
      // The start of every prompt, which a guess may share with an earlier one of the same tenant.
      const template = (await usage(KEYS.attacker, '!')).prompt_tokens;
      await cached(KEYS.bystander, secret);
      await cached(KEYS.attacker, 'Another text altogether');
      const right = await cached(KEYS.attacker, secret);
      assert.ok(right <= template, `a correct guess is visible: ${right} cached tokens, of which ${template} belong to the template`);
      // Other streams may take the slot in between.
      let own = 0;
      for (let i = 0; i < 5 && own <= template; ++i) own = await cached(KEYS.attacker, `${secret} More.`);
      assert.ok(own > template, 'a tenant must reuse the state of its earlier prompt');
    });

    await attack('SIGTERM while the engine works on such schemas', async () => {
      const inference = await arena.extra('runnel-inference', [...options.flags.inference, `--drain_timeout=${DRAIN_S}s`]);
      const bridge = await arena.extra('runnel-sse', [`--inference=${inference.address}`]);
      const requests = Object.values(SCHEMAS).map((schema) =>
        chat(bridge.address, '', { ...held(schema), max_tokens: 1000 }).catch(() => {}));
      await pause(500);
      const begin = performance.now();
      const gone = inference.kill('SIGTERM');
      const late = setTimeout(() => inference.child.kill('SIGKILL'), (DRAIN_S + 20) * 1000 * SLACK);
      const end = await gone;
      clearTimeout(late);
      const ms = performance.now() - begin;
      await bridge.kill('SIGTERM');
      await Promise.all(requests);
      assert.deepEqual(end, [0, null]);
      assert.ok(ms < (DRAIN_S + 5) * 1000 * SLACK, `ended after ${Math.round(ms)} ms`);
    });
  });
}
