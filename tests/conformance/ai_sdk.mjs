// The AI SDK: `ai` with `@ai-sdk/openai-compatible`.
import assert from 'node:assert/strict';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, generateText, streamText } from 'ai';
import { KEY, MODEL, SEED, cancels, script } from './testing.mjs';

export function aiSdk(runnel) {
  const baseURL = `${runnel.url}/v1`;
  const provider = createOpenAICompatible({ name: 'runnel', apiKey: KEY, baseURL, includeUsage: true });
  const call = (metadata = script(), more = {}) => ({
    model: provider(more.model ?? MODEL), prompt: 'go', seed: SEED, maxRetries: 0,
    providerOptions: { runnel: { metadata } }, onError: () => {}, ...more.call,
  });
  return {
    streaming: async () => {
      const result = streamText(call());
      assert.equal(await result.text, runnel.text);
      assert.equal(await result.finishReason, 'stop');
    },
    'one piece': async () => assert.equal((await generateText(call())).text, runnel.text),
    usage: async () => {
      const usage = await streamText(call()).usage;
      assert.deepEqual([usage.inputTokens, usage.outputTokens], [1, 12]);
    },
    finish: async () => {
      const reason = async (options) => (await generateText(call(script(), { call: options }))).finishReason;
      assert.equal(await reason({ stopSequences: ['never said'] }), 'stop');
      assert.equal(await reason({ maxOutputTokens: 3 }), 'length');
    },
    stop: async () => {
      const options = { stopSequences: [runnel.stopString] };
      const whole = await generateText(call(script(), { call: options }));
      assert.deepEqual([whole.text, whole.finishReason], [runnel.before, 'stop']);
      const stream = streamText(call(script(), { call: options }));
      assert.deepEqual([await stream.text, await stream.finishReason], [runnel.before, 'stop']);
      assert.equal((await stream.usage).outputTokens, runnel.beforeTokens);
    },
    'error before': async () => {
      await assert.rejects(generateText(call(script(), { model: 'none' })),
        (error) => APICallError.isInstance(error) && error.statusCode === 404);
    },
    'error within': async () => {
      const parts = [];
      for await (const part of streamText(call(script({ fail_at: 5 }))).fullStream) parts.push(part.type);
      assert.ok(parts.includes('text-delta') && parts.includes('error'), parts.join());
    },
    silence: async () => {
      assert.equal(await streamText(call(script({ first_token_ms: runnel.silenceMs }))).text, runnel.text);
    },
    abort: async () => {
      const abort = new AbortController();
      const options = { abortSignal: abort.signal, maxOutputTokens: 100000 };
      const result = streamText(call(script({ tokens: 100000, pace: 50 }), { call: options }));
      await cancels(runnel, async () => {
        for await (const part of result.fullStream) {
          if (part.type === 'text-delta') abort.abort();
          if (part.type === 'abort') break;
        }
      });
    },
  };
}
