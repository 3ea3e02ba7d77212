// The official `openai` package.
import assert from 'node:assert/strict';
import OpenAI from 'openai';
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
