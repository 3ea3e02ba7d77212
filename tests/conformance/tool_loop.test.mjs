// A model calls a tool and uses the result: the llama engine with the default model, over chat/completions, Responses and
// the native SSE route. Sampling is greedy, so the three give the same call and the same answer.
//
// RUNNEL_MODEL is the model. Without it the test is skipped.
import assert from 'node:assert/strict';
import test from 'node:test';
import OpenAI from 'openai';
import { stream } from '../../bridges/web/runnel.js';
import { startRunnel } from '../e2e/processes.mjs';
import { KEY, SEED } from './testing.mjs';

const { RUNNEL_MODEL } = process.env;
const QUESTION = 'What is the weather in Oslo, in celsius?';
const CITIES = ['Paris', 'Oslo', 'Rome'];
const UNITS = ['celsius', 'fahrenheit'];
const WEATHER = { name: 'get_weather', description: 'Returns the current weather of a city.', parameters: {
  type: 'object', properties: { city: { type: 'string', enum: CITIES }, unit: { type: 'string', enum: UNITS } },
  required: ['city', 'unit'], additionalProperties: false,
} };
const TOOLS = [{ type: 'function', function: WEATHER }];
const SAMPLING = { temperature: 0, seed: SEED };
const MAX_TOKENS = 96;
const CALL = { tool_choice: 'required', parallel_tool_calls: false };
const RESULT = 'heavy snow, -7 degrees';

/** The tool. Arguments that its schema does not allow are an error. */
function getWeather({ city, unit, ...more }) {
  assert.deepEqual([CITIES.includes(city), UNITS.includes(unit), more], [true, true, {}]);
  return `The weather in ${city}: ${RESULT}.`;
}

function execute(name, text) {
  assert.equal(name, WEATHER.name);
  return getWeather(JSON.parse(text));
}

async function overChat(client, model) {
  const create = (messages, more) => client.chat.completions.create({ model, messages, tools: TOOLS, max_tokens: MAX_TOKENS, ...SAMPLING, ...more });
  const messages = [{ role: 'user', content: QUESTION }];
  const called = await create(messages, CALL);
  const [{ message, finish_reason: finish }] = called.choices;
  assert.deepEqual([finish, message.content, message.tool_calls.length], ['tool_calls', null, 1]);
  const [{ id, function: { name, arguments: text } }] = message.tool_calls;
  const said = await create([...messages, message, { role: 'tool', tool_call_id: id, content: execute(name, text) }]);
  assert.deepEqual([said.choices[0].finish_reason, said.choices[0].message.tool_calls], ['stop', undefined]);
  return { text, answer: said.choices[0].message.content, prompts: [called.usage.prompt_tokens, said.usage.prompt_tokens] };
}

async function overResponses(client, model) {
  const create = (input, more) => client.responses.create({ model, input, tools: [{ type: 'function', strict: false, ...WEATHER }],
    max_output_tokens: MAX_TOKENS, ...SAMPLING, ...more });
  const called = await create(QUESTION, CALL);
  assert.deepEqual([called.status, called.output.map(({ type, status }) => [type, status])], ['completed', [['function_call', 'completed']]]);
  const [{ call_id: id, name, arguments: text }] = called.output;
  const said = await create([{ type: 'function_call_output', call_id: id, output: execute(name, text) }], { previous_response_id: called.id });
  assert.deepEqual([said.status, said.output.map(({ type }) => type)], ['completed', ['message']]);
  return { text, answer: said.output_text, prompts: [called.usage.input_tokens, said.usage.input_tokens] };
}

async function overNative({ url }) {
  const read = async (messages, more) => {
    const request = { messages, tools: TOOLS, max_tokens: MAX_TOKENS, ...SAMPLING, ...more };
    const generation = stream(request, { sseUrl: url, baseUrl: url, transport: 'sse' });
    let last;
    for await (const event of generation) last = event;
    const result = await generation.result;
    assert.equal(result.verified, true);
    // A single text part is not listed.
    return { ...result, ends: (last.choices[0].parts ?? []).map(({ kind, complete }) => [kind, complete]) };
  };
  const messages = [{ role: 'user', content: QUESTION }];
  const called = await read(messages, CALL);
  assert.deepEqual([called.finishReasons, called.ends], [['tool_calls'], [['tool_call', true]]]);
  const [{ id, name, arguments: text }] = called.toolCalls;
  const said = await read([...messages, { role: 'assistant', tool_calls: [{ id, type: 'function', function: { name, arguments: text } }] },
    { role: 'tool', tool_call_id: id, content: execute(name, text) }]);
  assert.deepEqual([said.finishReasons, said.parts.map(({ kind }) => kind), said.ends], [['stop'], ['text'], []]);
  return { text, answer: said.text, prompts: [called.usage.prompt_tokens, said.usage.prompt_tokens] };
}

test('the default model calls a tool and uses its result', { skip: !RUNNEL_MODEL && 'no model' }, async (t) => {
  const runnel = await startRunnel({ engine: ['--engine=llama', `--model=${RUNNEL_MODEL}`] });
  t.after(() => runnel.stop());
  const client = new OpenAI({ apiKey: KEY, baseURL: `${runnel.url}/v1`, maxRetries: 0 });
  const [{ id: model }] = (await client.models.list()).data;
  const routes = { 'chat/completions': overChat, Responses: overResponses, 'the native route': () => overNative(runnel) };
  let expected;
  for (const [name, run] of Object.entries(routes)) {
    await t.test(name, async () => {
      const found = await run(client, model);
      assert.deepEqual(JSON.parse(found.text), { city: 'Oslo', unit: 'celsius' });
      assert.ok(found.answer.includes(RESULT), found.answer);
      assert.ok(found.prompts[1] > found.prompts[0], `${found.prompts}`);
      expected ??= found;
      assert.deepEqual(found, expected);
    });
  }
});
