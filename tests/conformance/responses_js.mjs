// Reasoning, refusals, tools and several turns over the Responses API: the official `openai` package, and the AI SDK with
// `@ai-sdk/openai`, which uses this API and refers to earlier items by their ids.
import assert from 'node:assert/strict';
import { createOpenAI } from '@ai-sdk/openai';
import { generateText, jsonSchema, stepCountIs, streamText, tool } from 'ai';
import OpenAI from 'openai';
import { KEY, MODEL, script } from './testing.mjs';

const PARTS = 'reasoning:6,text:5,call:get_weather+get_time:4,refusal:3';
const KINDS = ['reasoning', 'message', 'function_call', 'function_call', 'message'];
const parameters = { type: 'object', properties: { words: { type: 'string' } }, required: ['words'],
  additionalProperties: false };
const tools = ['get_weather', 'get_time'].map((name) => ({ type: 'function', name, parameters, strict: false }));
const words = (text) => text.split(/\s+/).filter(Boolean).length;

async function all(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

/** Rebuilds the output from the events alone, and checks their order. */
function outputOf(events) {
  assert.deepEqual(events.map((event) => event.sequence_number), events.map((_, i) => i));
  assert.deepEqual(events.slice(0, 2).map(({ type }) => type), ['response.created', 'response.in_progress']);
  const items = [];
  const done = new Set();
  for (const event of events.slice(2, -1)) {
    if (event.type === 'response.output_item.added') {
      assert.equal(event.output_index, items.length);
      assert.equal(event.item.status, 'in_progress');
      items.push({ item: event.item, content: '', parts: 0 });
      continue;
    }
    const { output_index: index, type } = event;
    assert.ok(index < items.length && !done.has(index), type);
    if (type !== 'response.output_item.done') assert.equal(event.item_id, items[index].item.id);
    if (type === 'response.content_part.added') items[index].parts += 1;
    if (type.endsWith('.delta')) items[index].content += event.delta;
    if (event.content_index !== undefined) assert.deepEqual([event.content_index, items[index].parts], [0, 1]);
    const whole = event.text ?? event.refusal ?? event.arguments;
    if (whole !== undefined) assert.equal(whole, items[index].content);
    if (type !== 'response.output_item.done') continue;
    assert.equal(event.item.id, items[index].item.id);
    items[index].item = event.item;
    done.add(index);
  }
  return items;
}

export function openaiResponses(runnel) {
  const client = new OpenAI({ apiKey: KEY, baseURL: `${runnel.url}/v1`, maxRetries: 0 });
  const asked = { model: MODEL, input: 'go', tools, metadata: script({ parts: PARTS }) };
  return {
    'all parts': async () => {
      const events = await all(await client.responses.create({ ...asked, stream: true }));
      const items = outputOf(events);
      const { response } = events.at(-1);
      assert.equal(events.at(-1).type, 'response.completed');
      assert.deepEqual(response.output.map(({ type }) => type), KINDS);
      assert.deepEqual(response.output, items.map(({ item }) => item));
      assert.deepEqual(response.output.map(({ status }) => status), KINDS.map(() => 'completed'));
      for (const call of response.output.slice(2, 4)) assert.equal(words(JSON.parse(call.arguments).words), 4);
      assert.equal(new Set(response.output.map(({ id }) => id)).size, KINDS.length);
      assert.equal(response.usage.output_tokens_details.reasoning_tokens, 6);
      assert.deepEqual(response.tools, tools);
      assert.deepEqual(await client.responses.retrieve(response.id).then(({ output }) => output), response.output);
      const helper = client.responses.stream({ ...asked, background: true });
      const { id, output } = await helper.finalResponse();
      assert.deepEqual(output.map(({ type }) => type), KINDS);
      assert.equal(output[4].content[0].type, 'refusal');
      const whole = await all(await client.responses.retrieve(id, { stream: true }));
      for (let after = 0; after < whole.length - 1; ++after) {
        const rest = await all(await client.responses.retrieve(id, { stream: true, starting_after: after }));
        assert.deepEqual(rest, whole.slice(after + 1));
      }
      const again = client.responses.stream({ response_id: id, starting_after: 12 });
      assert.deepEqual((await again.finalResponse()).output.map((item) => item.id), output.map((item) => item.id));
      const one = await client.responses.create(asked);
      assert.deepEqual(one.output.map(({ type }) => type), KINDS);
      assert.deepEqual(one.tool_choice, 'auto');
    },
    'cut call': async () => {
      const cut = { ...asked, max_output_tokens: 15 };
      const events = await all(await client.responses.create({ ...cut, stream: true }));
      const items = outputOf(events);
      assert.equal(events.at(-1).type, 'response.incomplete');
      const { response } = events.at(-1);
      assert.deepEqual(response.output.slice(2).map(({ status }) => status), ['incomplete', 'incomplete']);
      assert.deepEqual(items.slice(2).map(({ item }) => item.status), ['in_progress', 'in_progress']);
      assert.ok(!events.some(({ type }) => type === 'response.function_call_arguments.done'));
      assert.throws(() => JSON.parse(response.output[2].arguments));
      const one = await client.responses.create(cut);
      assert.deepEqual([one.status, one.incomplete_details.reason], ['incomplete', 'max_output_tokens']);
      assert.deepEqual(one.output.map(({ status }) => status), response.output.map(({ status }) => status));
    },
    'several turns': async () => {
      const script_of = (parts) => ({ model: MODEL, tools, metadata: script({ parts }) });
      const first = await client.responses.create({
        ...script_of('reasoning:3,call:get_weather:2'), input: 'one two', instructions: 'not taken over' });
      const call = first.output[1];
      const second = await client.responses.create({ ...script_of('text:4'), previous_response_id: first.id,
        input: [{ type: 'function_call_output', call_id: call.call_id, output: 'it is warm' }] });
      // The words of both inputs, and those of the reasoning.
      assert.equal(second.usage.input_tokens, 2 + 3 + 3);
      assert.equal(second.previous_response_id, first.id);
      const stream = await client.responses.create({ ...script_of('text:1'), previous_response_id: second.id,
        input: 'thanks', instructions: 'be brief', stream: true });
      const { response: third } = (await all(stream)).at(-1);
      assert.equal(third.usage.input_tokens, 8 + 4 + 1 + 2);
      const referring = await client.responses.create({ ...script_of('text:1'), input: [
        { role: 'user', content: 'one two' }, { type: 'item_reference', id: first.output[0].id },
        { type: 'item_reference', id: call.id },
        { type: 'function_call_output', call_id: call.call_id, output: 'it is warm' }] });
      assert.equal(referring.usage.input_tokens, 8);
      await client.responses.delete(first.id);
      await assert.rejects(client.responses.create({ ...script_of('text:1'), previous_response_id: third.id, input: 'x' }),
        (error) => error instanceof OpenAI.NotFoundError && error.code === 'previous_response_not_found' &&
          error.message.includes(first.id));
      const unstored = await client.responses.create({ ...script_of('text:1'), input: 'x', store: false });
      await assert.rejects(client.responses.create({ ...script_of('text:1'), previous_response_id: unstored.id, input: 'x' }),
        OpenAI.NotFoundError);
    },
  };
}

export function aiSdkOpenai(runnel) {
  const provider = createOpenAI({ apiKey: KEY, baseURL: `${runnel.url}/v1` });
  const call = (parts, more) => ({
    model: provider(MODEL), maxRetries: 0, onError: () => {},
    providerOptions: { openai: { metadata: script({ parts }) } }, ...more,
  });
  const schema = jsonSchema(parameters);
  const weather = { get_weather: tool({ inputSchema: schema, execute: ({ words: said }) => `heard ${words(said)}` }) };
  const uncalled = { get_weather: tool({ inputSchema: schema }) };
  return {
    streaming: async () => {
      const result = streamText(call('text:12', { prompt: 'go' }));
      assert.equal(words(await result.text), 12);
      assert.equal(await result.finishReason, 'stop');
    },
    'all parts': async () => {
      const result = streamText(call('text:5,call:get_weather:4', { prompt: 'go', tools: uncalled }));
      const types = new Set();
      for await (const { type } of result.fullStream) types.add(type);
      for (const type of ['text-delta', 'tool-input-start', 'tool-input-delta', 'tool-input-end', 'tool-call']) {
        assert.ok(types.has(type), type);
      }
      assert.equal(await result.finishReason, 'tool-calls');
      assert.equal(words((await result.toolCalls)[0].input.words), 4);
      const whole = await generateText(call('reasoning:3,call:get_weather:4', { prompt: 'go', tools: uncalled }));
      assert.equal(words(whole.toolCalls[0].input.words), 4);
    },
    'several turns': async () => {
      const messages = [{ role: 'user', content: 'My name is Bob.' }];
      for (let turn = 0; turn < 3; ++turn) {
        const result = streamText(call('text:4', { messages }));
        assert.equal(words(await result.text), 4);
        // Each turn refers to the text of the ones before.
        assert.equal((await result.usage).inputTokens, 4 + turn * (4 + 2));
        messages.push(...(await result.response).messages, { role: 'user', content: 'And now?' });
      }
      // A script that always calls, so that the limit ends it.
      const steps = await generateText(call('reasoning:2,text:3,call:get_weather:4',
        { prompt: 'go', tools: weather, stopWhen: stepCountIs(3) }));
      assert.equal(steps.steps.length, 3);
      assert.deepEqual(steps.steps.map(({ toolResults }) => toolResults[0].output), ['heard 4', 'heard 4', 'heard 4']);
      assert.equal(steps.steps[1].usage.inputTokens, 1 + 2 + 3 + 2);
    },
  };
}
