// An OpenAI-compatible server that behaves like a model with tools. The prompt says what it does: `[scenario|run]`.
//
// It thinks, and calls tools until it sees their results, then it answers with a text that quotes them. If the framework
// has a tool of its own for its output (final_result, final_answer, extract-1, or a class with a capital), it calls this last.
import { MODEL, startFakeServer } from '../../e2e/fake_server.mjs';

export const CITIES = ['Zürich "HB"', 'São\\Paulo 🌧'];
export const REPORT = { city: CITIES[0], temperature: 7 };
export const REASONING = 'Let me think.';
const TAG = /\[([\w, ]+)\|([\w/ -]+)\]/;
const FRAGMENT = 3;

const text = (content) => (Array.isArray(content) ? content.map((part) => part.text ?? '').join('') : content ?? '');

/** Scenario and run of a request. */
export function tagOf({ messages, input }) {
  const found = TAG.exec(JSON.stringify(messages ?? input));
  return { scenario: found?.[1], run: found?.[2] };
}

/** The results of tools; smolagents sends them as observations of the user. */
export function resultsOf({ messages }) {
  const results = messages.filter(({ role }) => role === 'tool').map(({ content }) => text(content));
  const observed = messages.filter(({ role, content }) => role === 'user' && text(content).startsWith('Observation:'));
  return [...results, ...observed.map(({ content }) => text(content))];
}

/** A value that fits a schema. */
function valueOf(schema, root, name, city, answer) {
  const of = (each, key = name) => valueOf(each, root, key, city, answer);
  if (schema.$ref) return of(root.$defs[schema.$ref.split('/').at(-1)]);
  if (schema.type === 'object') {
    return Object.fromEntries(Object.entries(schema.properties ?? {}).map(([key, each]) => [key, of(each, key)]));
  }
  if (schema.type === 'integer') return REPORT.temperature;
  return name === 'city' ? city : answer;
}

const isOutput = ({ function: { name } }) => /^(final_|extract-|[A-Z])/.test(name);

const isParallel = (scenario) => scenario.startsWith('parallel');

/** The tools that the model calls now. */
function chosen(scenario, tools, results) {
  const own = tools.filter((tool) => !isOutput(tool));
  if (own.length === 0 && results.length === 0) return isParallel(scenario) ? tools : tools.slice(0, 1);
  if (results.length > 0) return tools.filter(isOutput);
  return isParallel(scenario) ? own : own.slice(0, 1);
}

let calls = 0;

/** The deltas of a response, and its finish reason. */
function plan(body) {
  const { scenario } = tagOf(body);
  const results = resultsOf(body);
  const answer = `I read ${results.join(' and ')}.`;
  const tools = body.tool_choice === 'none' ? [] : chosen(scenario, body.tools ?? [], results);
  const thinking = [{ role: 'assistant', reasoning_content: REASONING.slice(0, 7) }, { reasoning_content: REASONING.slice(7) }];
  if (tools.length === 0) {
    const schema = body.response_format?.json_schema?.schema;
    const said = schema ? JSON.stringify(valueOf(schema, schema, '', CITIES[0], answer)) : answer;
    return { deltas: [...thinking, ...said.match(/.{1,8}/gsu).map((content) => ({ content }))], finish: 'stop', said };
  }
  const made = tools.map(({ function: { name, parameters } }, index) => (
    { index, id: `call_${++calls}`, name, text: JSON.stringify(valueOf(parameters, parameters, '', CITIES[index], answer)) }));
  const cut = scenario.startsWith('cut');
  const openings = made.map(({ index, id, name }) => (
    { tool_calls: [{ index, id, type: 'function', function: { name, arguments: '' } }] }));
  const fragments = made.map(({ index, text: whole }) => (whole.match(new RegExp(`.{1,${FRAGMENT}}`, 'gsu')) ?? [])
    .map((piece) => ({ tool_calls: [{ index, function: { arguments: piece } }] })));
  // The fragments of parallel calls alternate, those of calls in turn do not.
  const alternating = Array.from({ length: Math.max(...fragments.map((each) => each.length)) },
    (_, i) => fragments.flatMap((each) => each.slice(i, i + 1))).flat();
  const inTurn = openings.flatMap((opening, i) => [opening, ...fragments[i]]);
  const kept = scenario === 'cut before the arguments' ? [] : alternating.slice(0, cut ? 3 : undefined);
  const sent = scenario === 'parallel, in turn' ? inTurn : [...openings, ...kept];
  const finish = cut && scenario !== 'cut, reported as complete' ? 'length' : 'tool_calls';
  return { deltas: [...thinking, ...sent], finish, made };
}

/** `turns` has, for each request, its run, its body, and the calls or the text of the response. */
export async function startFakeModel() {
  const turns = [];
  const server = await startFakeServer((response, body) => {
    const { deltas, finish, made = [], said } = plan(body);
    turns.push({ ...tagOf(body), body, made, said });
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    const send = (chunk) => response.write(`data: ${JSON.stringify(
      { id: 'chatcmpl-1', object: 'chat.completion.chunk', created: 1, model: MODEL, choices: [], ...chunk })}\n\n`);
    for (const delta of deltas) send({ choices: [{ index: 0, delta, finish_reason: null }] });
    send({ choices: [{ index: 0, delta: {}, finish_reason: finish }] });
    send({ usage: { prompt_tokens: 3, completion_tokens: deltas.length, total_tokens: 3 + deltas.length } });
    response.end('data: [DONE]\n\n');
  });
  return { ...server, turns };
}
