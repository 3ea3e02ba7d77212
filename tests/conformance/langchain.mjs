// LangChain's OpenAI chat model.
import assert from 'node:assert/strict';
import { AIMessage, HumanMessage, ToolMessage } from '@langchain/core/messages';
import { ChatOpenAI } from '@langchain/openai';
import { NAMED, ONE_CALL, TOOLS, TWO_CALLS, checkArguments, checkHistory, parts, scriptedFetch } from './parts.mjs';
import { KEY, MODEL, SEED, cancels, script } from './testing.mjs';

export function langchain(runnel) {
  const make = (metadata = script(), more = {}) => new ChatOpenAI({
    model: MODEL, apiKey: KEY, maxRetries: 0, streamUsage: true, configuration: { baseURL: `${runnel.url}/v1` },
    modelKwargs: { metadata, seed: SEED }, ...more,
  });
  const join = async (stream) => {
    let text = '';
    for await (const chunk of stream) text += chunk.content;
    return text;
  };
  return {
    streaming: async () => assert.equal(await join(await make().stream('go')), runnel.text),
    'one piece': async () => assert.equal((await make().invoke('go')).content, runnel.text),
    'n = 2': async () => {
      const { generations } = await make(script(), { n: 2 }).generate([[{ role: 'user', content: 'go' }]]);
      assert.equal(generations[0].length, 2);
      assert.equal(generations[0][0].text, runnel.text);
    },
    usage: async () => {
      let usage;
      for await (const chunk of await make().stream('go')) usage = chunk.usage_metadata ?? usage;
      assert.deepEqual([usage.input_tokens, usage.output_tokens], [1, 12]);
    },
    finish: async () => {
      const cut = await make(script(), { maxTokens: 3, stop: ['never said'] }).invoke('go');
      assert.equal(cut.response_metadata.finish_reason, 'length');
    },
    stop: async () => {
      const model = make(script(), { stop: [runnel.stopString] });
      const whole = await model.invoke('go');
      assert.deepEqual([whole.content, whole.response_metadata.finish_reason], [runnel.before, 'stop']);
      assert.equal(await join(await model.stream('go')), runnel.before);
    },
    tools: async () => {
      for (const choice of ['required', 'auto', NAMED]) {
        const reply = await make(ONE_CALL).bindTools(TOOLS, { tool_choice: choice }).invoke('go');
        assert.deepEqual([reply.content, reply.response_metadata.finish_reason], ['', 'tool_calls']);
        assert.deepEqual(reply.tool_calls.map(({ name }) => name), ['get_weather']);
        checkArguments(reply.tool_calls[0].args, 3);
      }
      const structured = make(parts('call:extract:3')).withStructuredOutput(TOOLS[0].function.parameters,
        { name: 'extract', method: 'functionCalling' });
      checkArguments(await structured.invoke('go'), 3);
    },
    'parallel calls': async () => {
      const { tool_calls: calls } = await make(TWO_CALLS).bindTools(TOOLS).invoke('go');
      assert.deepEqual(calls.map(({ name }) => name), ['get_weather', 'get_time']);
      for (const { args } of calls) checkArguments(args, 4);
    },
    'streamed arguments': async () => {
      let whole;
      for await (const chunk of await make(TWO_CALLS).bindTools(TOOLS).stream('go')) whole = whole?.concat(chunk) ?? chunk;
      assert.deepEqual(whole.tool_calls.map(({ name }) => name), ['get_weather', 'get_time']);
      for (const { args } of whole.tool_calls) checkArguments(args, 4);
      const cut = await make(ONE_CALL, { maxTokens: 2 }).bindTools(TOOLS).invoke('go');
      assert.deepEqual([cut.tool_calls, cut.response_metadata.finish_reason], [[], 'length']);
    },
    'tool results': async () => {
      const scripted = scriptedFetch(ONE_CALL, parts('text:12'));
      const model = new ChatOpenAI({ model: MODEL, apiKey: KEY, maxRetries: 0, modelKwargs: { seed: SEED },
        configuration: { baseURL: `${runnel.url}/v1`, fetch: scripted } }).bindTools(TOOLS);
      const asked = [new HumanMessage('go')];
      const called = await model.invoke(asked);
      assert.ok(called instanceof AIMessage);
      const [{ id }] = called.tool_calls;
      const reply = await model.invoke([...asked, called, new ToolMessage({ tool_call_id: id, content: 'sunny' })]);
      assert.equal(reply.content, runnel.text);
      checkHistory(scripted.bodies[1], id, 'sunny');
    },
    'error before': async () => {
      await assert.rejects(make(script(), { model: 'none' }).invoke('go'), ({ status }) => status === 404);
    },
    'error within': async () => {
      await assert.rejects(async () => join(await make(script({ fail_at: 5 })).stream('go')));
    },
    silence: async () => {
      assert.equal(await join(await make(script({ first_token_ms: runnel.silenceMs })).stream('go')), runnel.text);
    },
    abort: async () => {
      const abort = new AbortController();
      const model = make(script({ tokens: 100000, pace: 50 }), { maxTokens: 100000 });
      const stream = await model.stream('go', { signal: abort.signal });
      await cancels(runnel, async () => {
        await assert.rejects(async () => {
          for await (const chunk of stream) if (chunk.content) abort.abort();
        });
      });
    },
  };
}
