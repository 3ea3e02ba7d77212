// The official `openai` package.
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { NAMED, ONE_CALL, PIXEL, THINKING, TOOLS, TWO_CALLS, TWO_IN_TURN, checkArguments, checkHistory, parts, scriptedFetch } from './parts.mjs';
import { KEY, MODEL, SEED, cancels, script } from './testing.mjs';

const messages = [{ role: 'user', content: 'go' }];
const LOGPROBS = 'message.output_text.logprobs';

export function openaiJs(runnel) {
  const client = new OpenAI({ apiKey: KEY, baseURL: `${runnel.url}/v1`, maxRetries: 0 });
  const chat = (more = {}, options = {}) => client.chat.completions.create(
    { model: MODEL, messages, seed: SEED, metadata: script(), ...more }, options);
  const join = async (stream, index = 0) => {
    let text = '';
    for await (const chunk of stream) {
      for (const choice of chunk.choices) if (choice.index === index) text += choice.delta.content ?? '';
    }
    return text;
  };
  return {
    streaming: async () => {
      assert.equal(await join(await chat({ stream: true })), runnel.text);
      const helper = client.chat.completions.stream({ model: MODEL, messages, seed: SEED, metadata: script() });
      assert.equal(await helper.finalContent(), runnel.text);
      let legacy = '';
      const stream = await client.completions.create(
        { model: MODEL, prompt: 'go', seed: SEED, max_tokens: 12, metadata: script(), stream: true });
      for await (const chunk of stream) legacy += chunk.choices[0].text;
      assert.equal(legacy, runnel.text);
    },
    'one piece': async () => {
      const response = await chat();
      assert.equal(response.choices[0].message.content, runnel.text);
      assert.match(response._request_id, /^req_/);
      assert.deepEqual((await client.models.list()).data.map(({ id }) => id), [MODEL]);
      assert.equal((await client.models.retrieve(MODEL)).id, MODEL);
    },
    'n = 2': async () => {
      const response = await chat({ n: 2 });
      assert.deepEqual(response.choices.map(({ index }) => index), [0, 1]);
      const helper = client.chat.completions.stream(
        { model: MODEL, messages, seed: SEED, n: 2, metadata: script() });
      const texts = ({ choices }) => choices.map((each) => each.message.content);
      assert.deepEqual(texts(await helper.finalChatCompletion()), texts(response));
    },
    'several prompts': async () => {
      const ask = { model: MODEL, prompt: ['go', 'and go on'], n: 2, seed: SEED, metadata: script() };
      const whole = await client.completions.create(ask);
      assert.deepEqual(whole.choices.map(({ index, finish_reason }) => [index, finish_reason]),
        [0, 1, 2, 3].map((index) => [index, 'stop']));
      const texts = whole.choices.map(({ text }) => text);
      assert.equal(texts[0], runnel.text);
      assert.notEqual(texts[1], texts[0]);
      // The scripted engine's text depends on the seed, not on the prompt.
      assert.deepEqual(texts.slice(2), texts.slice(0, 2));
      assert.deepEqual([whole.usage.prompt_tokens, whole.usage.completion_tokens], [4, 48]);
      const read = ['', '', '', ''];
      let usage;
      const stream = await client.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } });
      for await (const chunk of stream) {
        for (const { index, text } of chunk.choices) read[index] += text;
        usage = chunk.usage ?? usage;
      }
      assert.deepEqual(read, texts);
      assert.deepEqual(usage, whole.usage);
      const failing = { ...ask, metadata: script({ fail_at: 5 }) };
      await assert.rejects(async () => {
        for await (const chunk of await client.completions.create({ ...failing, stream: true })) assert.ok(chunk);
      }, (error) => error instanceof OpenAI.APIError && error.code === 'engine_failed');
      await assert.rejects(client.completions.create({ ...ask, prompt: ['go', ''] }),
        (error) => error instanceof OpenAI.BadRequestError && error.param === 'prompt[1]');
      const endless = { ...ask, max_tokens: 100000, metadata: script({ tokens: 100000, pace: 50 }) };
      const long = await client.completions.create({ ...endless, stream: true });
      await cancels(runnel, async () => {
        const seen = new Set();
        for await (const chunk of long) if (seen.add(chunk.choices[0].index).size === 4) break;
      }, 2);
    },
    usage: async () => {
      let usage = null;
      const stream = await chat({ stream: true, stream_options: { include_usage: true } });
      for await (const chunk of stream) usage = chunk.usage;
      assert.deepEqual([usage.prompt_tokens, usage.completion_tokens, usage.total_tokens], [1, 12, 13]);
    },
    finish: async () => {
      assert.equal((await chat({ stop: ['never said'] })).choices[0].finish_reason, 'stop');
      assert.equal((await chat({ max_tokens: 3 })).choices[0].finish_reason, 'length');
    },
    stop: async () => {
      const stop = runnel.stopString;
      const response = await chat({ stop });
      assert.equal(response.choices[0].message.content, runnel.before);
      assert.equal(response.choices[0].finish_reason, 'stop');
      assert.equal(response.usage.completion_tokens, runnel.beforeTokens);
      assert.equal(await join(await chat({ stop: ['never said', stop], stream: true })), runnel.before);
      const helper = client.chat.completions.stream(
        { model: MODEL, messages, seed: SEED, n: 2, stop: [stop], metadata: script() });
      const [first, second] = (await helper.finalChatCompletion()).choices;
      assert.deepEqual([first.message.content, first.finish_reason], [runnel.before, 'stop']);
      assert.ok(!second.message.content.includes(stop) && second.message.content.length > 0);
      const legacy = { model: MODEL, prompt: 'go', seed: SEED, stop, metadata: script() };
      assert.equal((await client.completions.create(legacy)).choices[0].text, runnel.before);
      let text = '';
      for await (const chunk of await client.completions.create({ ...legacy, stream: true })) {
        text += chunk.choices[0].text;
      }
      assert.equal(text, runnel.before);
    },
    tools: async () => {
      for (const choice of ['required', 'auto', NAMED]) {
        const [{ message, finish_reason: finish }] = (await chat({ tools: TOOLS, tool_choice: choice, metadata: ONE_CALL })).choices;
        assert.deepEqual([message.content, finish, message.tool_calls.length], [null, 'tool_calls', 1]);
        const [{ id, type, function: called }] = message.tool_calls;
        assert.deepEqual([type, called.name], ['function', 'get_weather']);
        assert.match(id, /^call_/);
        checkArguments(called.arguments, 3);
      }
      const parsed = await client.chat.completions.parse({ model: MODEL, messages, seed: SEED, metadata: ONE_CALL,
        tools: [{ ...TOOLS[0], function: { ...TOOLS[0].function, strict: true } }] });
      checkArguments(parsed.choices[0].message.tool_calls[0].function.parsed_arguments, 3);
    },
    'parallel calls': async () => {
      const whole = (await chat({ tools: TOOLS, parallel_tool_calls: true, metadata: TWO_IN_TURN })).choices[0].message;
      assert.deepEqual(whole.tool_calls.map((call) => call.function.name), ['get_weather', 'get_time']);
      assert.notEqual(whole.tool_calls[0].id, whole.tool_calls[1].id);
      for (const call of whole.tool_calls) checkArguments(call.function.arguments, 4);
      const helper = client.chat.completions.stream({ model: MODEL, messages, seed: SEED, tools: TOOLS, metadata: TWO_IN_TURN });
      const done = [];
      helper.on('tool_calls.function.arguments.done', (call) => done.push(call));
      const message = await helper.finalMessage();
      assert.deepEqual(message.tool_calls, whole.tool_calls);
      assert.equal(message.content, whole.content);
      assert.deepEqual(done.map(({ index }) => index), [0, 1]);
    },
    'streamed arguments': async () => {
      const calls = [];
      let finish;
      for await (const chunk of await chat({ stream: true, tools: TOOLS, metadata: TWO_CALLS })) {
        finish = chunk.choices[0].finish_reason;
        for (const { index, ...fragment } of chunk.choices[0].delta.tool_calls ?? []) {
          if (calls[index]) {
            assert.deepEqual(Object.keys(fragment), ['function']);
            calls[index].arguments += fragment.function.arguments;
          } else {
            assert.deepEqual([fragment.type, fragment.function.arguments], ['function', '']);
            calls[index] = { ...fragment.function };
          }
        }
      }
      assert.equal(finish, 'tool_calls');
      assert.deepEqual(calls.map(({ name }) => name), ['get_weather', 'get_time']);
      for (const call of calls) checkArguments(call.arguments, 4);
      // A call that the token limit cuts is never reported as complete.
      const cut = await chat({ tools: TOOLS, metadata: ONE_CALL, max_tokens: 2 });
      assert.deepEqual([cut.choices[0].finish_reason, cut.choices[0].message.tool_calls], ['length', undefined]);
      const reasons = [];
      for await (const { choices: [choice] } of await chat({ stream: true, tools: TOOLS, metadata: ONE_CALL, max_tokens: 2 })) {
        if (choice.finish_reason) reasons.push(choice.finish_reason);
      }
      assert.deepEqual(reasons, ['length']);
    },
    'tool results': async () => {
      const scripted = scriptedFetch(ONE_CALL, parts('text:12'));
      const looping = new OpenAI({ apiKey: KEY, baseURL: `${runnel.url}/v1`, maxRetries: 0, fetch: scripted });
      const given = [];
      const call = async (value) => {
        given.push(value);
        return 'sunny';
      };
      const tools = [{ type: 'function', function: { ...TOOLS[0].function, function: call, parse: JSON.parse } }];
      for (const stream of [false, true]) {
        scripted.bodies.length = 0;
        const runner = looping.chat.completions.runTools({ model: MODEL, messages, seed: SEED, stream, tools });
        assert.equal(await runner.finalContent(), runnel.text);
        checkArguments(given.pop(), 3);
        assert.equal(scripted.bodies.length, 2);
        checkHistory(scripted.bodies[1], runner.messages[1].tool_calls[0].id, 'sunny');
      }
    },
    reasoning: async () => {
      const whole = await chat({ reasoning_effort: 'low', metadata: THINKING });
      const [{ message }] = whole.choices;
      assert.equal(message.reasoning_content.split(' ').length, 4);
      assert.equal(message.reasoning, message.reasoning_content);
      assert.equal(message.content.split(' ').length, 5);
      assert.equal(whole.usage.completion_tokens_details.reasoning_tokens, 4);
      let [reasoning, content] = ['', ''];
      for await (const { choices: [{ delta }] } of await chat({ stream: true, metadata: THINKING })) {
        assert.equal(delta.reasoning, delta.reasoning_content);
        reasoning += delta.reasoning_content ?? '';
        content += delta.content ?? '';
      }
      assert.deepEqual([reasoning, content], [message.reasoning_content, message.content]);
      const history = [...messages, { role: 'assistant', content: 'x', reasoning_content: reasoning }, ...messages];
      assert.equal((await chat({ messages: history })).choices[0].message.content, runnel.text);
    },
    images: async () => {
      // The scripted engine sees no images; upstream_parts.test.mjs has a server that does.
      const image = (url) => chat({ messages: [{ role: 'user', content: [{ type: 'text', text: 'what?' }, { type: 'image_url', image_url: { url } }] }] });
      await assert.rejects(image(PIXEL), (error) => error instanceof OpenAI.BadRequestError &&
        error.param === 'messages[0].content' && error.code === 'unsupported_parameter');
      await assert.rejects(image('https://example.com/a.png'),
        (error) => error instanceof OpenAI.BadRequestError && error.param === 'messages[0].content[1].image_url.url');
    },
    'error before': async () => {
      await assert.rejects(chat({ model: 'none' }),
        (error) => error instanceof OpenAI.NotFoundError && error.code === 'model_not_found');
      await assert.rejects(chat({ temperature: 9, stream: true }),
        (error) => error instanceof OpenAI.BadRequestError && error.param === 'temperature');
    },
    'error within': async () => {
      await assert.rejects(async () => join(await chat({ stream: true, metadata: script({ fail_at: 5 }) })),
        (error) => error instanceof OpenAI.APIError && error.code === 'engine_failed');
    },
    silence: async () => {
      const metadata = script({ first_token_ms: runnel.silenceMs });
      assert.equal(await join(await chat({ stream: true, metadata })), runnel.text);
    },
    abort: async () => {
      const stream = await chat({ stream: true, metadata: script({ tokens: 100000, pace: 50 }), max_tokens: 100000 });
      await cancels(runnel, async () => {
        for await (const chunk of stream) if (chunk.choices[0]?.delta.content) break;
      });
      const abort = new AbortController();
      const metadata = script({ tokens: 100000, pace: 50 });
      const response = chat({ metadata, max_tokens: 100000 }, { signal: abort.signal });
      await cancels(runnel, async () => {
        await runnel.running();
        abort.abort();
        await assert.rejects(response, OpenAI.APIUserAbortError);
      });
    },
    'background, resume': async () => {
      const whole = [];
      const ask = { model: MODEL, input: 'go', background: true, stream: true };
      const metadata = script({ tokens: 60, pace: 60 });
      let id;
      try {
        for await (const event of await client.responses.create({ ...ask, metadata })) {
          whole.push(event);
          id ??= event.response?.id;
          if (event.sequence_number === 10) await runnel.restartBridge();
        }
        assert.fail('the stream continued after its bridge was killed');
      } catch (error) {
        if (error.code === 'ERR_ASSERTION') throw error;
      }
      const after = whole.at(-1).sequence_number;
      const rest = await client.responses.retrieve(id, { stream: true, starting_after: after });
      for await (const event of rest) whole.push(event);
      assert.deepEqual(whole.map((event) => event.sequence_number), whole.map((_, i) => i));
      assert.equal(whole.at(-1).type, 'response.completed');
      const text = whole.filter(({ type }) => type === 'response.output_text.delta').map(({ delta }) => delta).join('');
      assert.equal(whole.at(-1).response.output[0].content[0].text, text);
      assert.equal((await client.responses.retrieve(id)).output_text, text);
      const helper = client.responses.stream({ response_id: id, starting_after: 20 });
      assert.equal((await helper.finalResponse()).output_text, text);
      await client.responses.delete(id);
      await assert.rejects(client.responses.retrieve(id), OpenAI.NotFoundError);
      const asked = { model: MODEL, input: 'go', background: true, include: [LOGPROBS], top_logprobs: 2 };
      const events = [];
      for await (const event of await client.responses.create({ ...asked, stream: true, metadata: script() })) {
        events.push(event);
      }
      const { response } = events.at(-1);
      const scores = response.output[0].content[0].logprobs;
      assert.equal(scores.map(({ token }) => token).join(''), response.output[0].content[0].text);
      assert.ok(scores.every((each) => each.logprob <= 0 && each.top_logprobs.length === 2));
      assert.deepEqual(events.flatMap((event) => (event.type.endsWith('.delta') ? event.logprobs : [])), scores);
      assert.deepEqual(events.map((event) => event.sequence_number), events.map((_, i) => i));
      const kept = await client.responses.retrieve(response.id, { include: [LOGPROBS] });
      assert.deepEqual(kept.output[0].content[0].logprobs, scores);
      assert.equal((await client.responses.retrieve(response.id)).output[0].content[0].logprobs, undefined);
      const endless = script({ tokens: 100000, pace: 50 });
      const long = await client.responses.create({ ...ask, stream: false, metadata: endless });
      assert.equal((await client.responses.cancel(long.id)).status, 'cancelled');
    },
  };
}
