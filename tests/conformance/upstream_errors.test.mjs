// Rejections by an inference server, as the official `openai` package reports them.
import assert from 'node:assert/strict';
import test from 'node:test';
import OpenAI from 'openai';
import { MODEL, respondWithError, respondWithTokens, startFakeServer } from '../e2e/fake_server.mjs';
import { startRunnel } from '../e2e/processes.mjs';

const REJECTIONS = {
  busy: [429, { message: 'Too many requests', type: 'rate_limit_error', param: null, code: 'rate_limit' }, { 'retry-after': '17' }],
  invalid: [400, { message: 'At most 2048 tokens', type: 'BadRequestError', param: 'messages', code: 'context_length_exceeded' }],
};

test('rejections by the server, as the openai package reports them', async (t) => {
  const server = await startFakeServer((response, { messages: [{ content }] }) =>
    (REJECTIONS[content] ? respondWithError(response, ...REJECTIONS[content]) : respondWithTokens(response, ['Hello'])));
  t.after(() => server.close());
  const runnel = await startRunnel({ engine: ['--engine=upstream', `--upstream_url=${server.url}`] });
  t.after(() => runnel.stop());
  const client = new OpenAI({ apiKey: 'any-key', baseURL: `${runnel.url}/v1`, maxRetries: 0 });
  const create = (content, stream) => client.chat.completions.create({ model: MODEL, messages: [{ role: 'user', content }], stream });
  assert.equal((await create('go', false)).choices[0].message.content, 'Hello');
  for (const stream of [false, true]) {
    await assert.rejects(create('busy', stream), (error) => error instanceof OpenAI.RateLimitError &&
      error.status === 429 && error.headers.get('retry-after') === '17');
    await assert.rejects(create('invalid', stream), (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      const { message, type, param, code } = error;
      assert.deepEqual({ type, param, code }, { type: 'BadRequestError', param: 'messages', code: 'context_length_exceeded' });
      assert.match(message, /At most 2048 tokens/);
      return true;
    });
  }
  // The client repeats a request that is rejected with 429, after the time that the server asks for.
  const started = server.requests.length;
  REJECTIONS.busy[2] = { 'retry-after': '1' };
  const patient = new OpenAI({ apiKey: 'any-key', baseURL: `${runnel.url}/v1`, maxRetries: 1 });
  await assert.rejects(patient.chat.completions.create({ model: MODEL, messages: [{ role: 'user', content: 'busy' }] }), OpenAI.RateLimitError);
  assert.equal(server.requests.length - started, 2);
});
