// The AI SDK: `ai` with `@ai-sdk/openai-compatible`.
import assert from 'node:assert/strict';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, generateText, jsonSchema, stepCountIs, streamText, tool } from 'ai';
import { ONE_CALL, PARAMETERS, THINKING, TWO_CALLS, checkArguments, checkHistory, parts, scriptedFetch } from './parts.mjs';
import { KEY, MODEL, SEED, cancels, script } from './testing.mjs';

export function aiSdk(runnel) {
  const baseURL = `${runnel.url}/v1`;
  const provider = createOpenAICompatible({ name: 'runnel', apiKey: KEY, baseURL, includeUsage: true });
  const call = (metadata = script(), more = {}) => ({
    model: provider(more.model ?? MODEL), prompt: 'go', seed: SEED, maxRetries: 0,
    providerOptions: { runnel: { metadata } }, onError: () => {}, ...more.call,
  });
  const toolOf = (name, execute) => tool({ description: `calls ${name}`, inputSchema: jsonSchema(PARAMETERS), execute });
  const tools = { get_weather: toolOf('get_weather'), get_time: toolOf('get_time') };
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
    tools: async () => {
      for (const toolChoice of ['required', 'auto', { type: 'tool', toolName: 'get_weather' }]) {
        const result = await generateText(call(ONE_CALL, { call: { tools, toolChoice } }));
        assert.equal(result.finishReason, 'tool-calls');
        assert.deepEqual(result.toolCalls.map(({ toolName }) => toolName), ['get_weather']);
        checkArguments(result.toolCalls[0].input, 3);
      }
    },
    'parallel calls': async () => {
      const whole = (await generateText(call(TWO_CALLS, { call: { tools } }))).toolCalls;
      assert.deepEqual(whole.map(({ toolName }) => toolName), ['get_weather', 'get_time']);
      const streamed = await streamText(call(TWO_CALLS, { call: { tools } })).toolCalls;
      const seen = (calls) => calls.map(({ toolCallId, toolName, input }) => ({ toolCallId, toolName, input }))
        .sort((a, b) => a.toolCallId.localeCompare(b.toolCallId));
      assert.deepEqual(seen(streamed), seen(whole));
    },
    'streamed arguments': async () => {
      const inputs = new Map();
      const ended = [];
      for await (const part of streamText(call(TWO_CALLS, { call: { tools } })).fullStream) {
        if (part.type === 'tool-input-start') inputs.set(part.id, '');
        if (part.type === 'tool-input-delta') inputs.set(part.id, inputs.get(part.id) + part.delta);
        if (part.type === 'tool-call') ended.push(part);
      }
      assert.equal(ended.length, 2);
      for (const { toolCallId, input } of ended) assert.deepEqual(checkArguments(inputs.get(toolCallId), 4), input);
      const cut = await streamText(call(ONE_CALL, { call: { tools, maxOutputTokens: 2 } }));
      assert.equal(await cut.finishReason, 'length');
      assert.deepEqual((await cut.toolCalls).filter(({ invalid }) => !invalid), []);
    },
    'tool results': async () => {
      const given = [];
      const weather = toolOf('get_weather', async (input) => {
        given.push(input);
        return 'sunny';
      });
      for (const run of [generateText, streamText]) {
        const scripted = scriptedFetch(ONE_CALL, parts('text:12'));
        const looping = createOpenAICompatible({ name: 'runnel', apiKey: KEY, baseURL, fetch: scripted });
        const result = await run({ model: looping(MODEL), prompt: 'go', seed: SEED, maxRetries: 0,
          tools: { get_weather: weather }, stopWhen: stepCountIs(3) });
        assert.equal(await result.text, runnel.text);
        const steps = await result.steps;
        assert.equal(steps.length, 2);
        checkArguments(given.pop(), 3);
        checkHistory(scripted.bodies[1], steps[0].toolCalls[0].toolCallId, 'sunny');
      }
    },
    reasoning: async () => {
      const whole = await generateText(call(THINKING));
      assert.equal(whole.reasoningText.split(' ').length, 4);
      assert.equal(whole.text.split(' ').length, 5);
      const streamed = streamText(call(THINKING));
      assert.equal(await streamed.reasoningText, whole.reasoningText);
      assert.equal(await streamed.text, whole.text);
      assert.equal((await streamed.usage).reasoningTokens, 4);
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
