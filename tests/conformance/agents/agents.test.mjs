// Agent frameworks behind the SSE bridge and the upstream engine, with a fake model. Run by run.sh, which installs the
// frameworks; skipped without RUNNEL_AGENTS. Prints a row of a table for each framework, API and way of reading.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import test from 'node:test';
import { MODEL } from '../../e2e/fake_server.mjs';
import { startRunnel } from '../../e2e/processes.mjs';
import { CITIES, REPORT, startFakeModel, tagOf } from './fake_model.mjs';
import { startRecorder } from './recorder.mjs';

const { RUNNEL_AGENTS, RUNNEL_AGENTS_PYTHON: python, RUNNEL_INSTRUCTOR_PYTHON: instructorPython } = process.env;
const here = import.meta.dirname ?? new URL('.', import.meta.url).pathname;
const TIMEOUT_MS = 300_000;
const TOOLS = ['one', 'parallel', 'structured'];
const CUTS = ['cut', 'cut, reported as complete', 'cut before the arguments'];

const WEATHER = `weather of ${CITIES[0]}: sunny`;
const TIME = `time in ${CITIES[1]}: noon`;

// What a framework does with a call that the token limit has cut: of a response in one piece, and of a stream.
//   raises    raises an error
//   ends      ends the run without the call
//   asks      asks the model again, mostly with an error as the result of the call
//   executes  executes the call: smolagents passes the fragment as the only argument of the tool, LangChain completes it
// A chat shows nothing of a call that was cut before its arguments, so that a stream ends as a response in one piece does.
// Responses shows it with the status `incomplete`. `early` has the exceptions: in a stream, openai-agents in JavaScript
// asks until it may not ask again; on Responses, pydantic-ai executes the call, and Instructor makes an object of defaults.
// `inTurn`: the ways in which a framework reads parallel calls only if their fragments do not alternate.
const FRAMEWORKS = {
  'openai-agents (Python)': { script: 'with_openai_agents.py', package: 'openai-agents',
    cuts: { chat: ['raises', 'asks'], responses: ['raises', 'raises'] } },
  'openai-agents (JavaScript)': { script: 'openai_agents.mjs', package: '@openai/agents',
    cuts: { chat: ['ends', 'asks'], responses: ['raises', 'raises'] }, early: { chat: ['ends', 'raises'] } },
  'pydantic-ai': { script: 'with_pydantic_ai.py', package: 'pydantic-ai-slim',
    cuts: { chat: ['raises', 'asks'], responses: ['asks', 'asks'] }, early: { responses: ['executes', 'executes'] } },
  instructor: { script: 'with_instructor.py', package: 'instructor',
    cuts: { chat: ['raises', 'raises'], responses: ['raises', 'raises'] }, early: { responses: ['raises', 'ends'] } },
  'langchain (Python)': { script: 'with_langchain.py', package: 'langchain',
    cuts: { chat: ['ends', 'executes'], responses: ['ends', 'executes'] }, early: { chat: ['ends', 'ends'] }, inTurn: ['responses, stream'] },
  'langchain (JavaScript)': { script: 'langchain.mjs', package: 'langchain',
    cuts: { chat: ['ends', 'executes'], responses: ['ends', 'executes'] }, early: { chat: ['ends', 'ends'] } },
  litellm: { script: 'with_litellm.py', package: 'litellm',
    cuts: { chat: ['ends', 'raises'], responses: ['raises', 'raises'] } },
  llm: { script: 'with_llm.py', package: 'llm', cuts: { chat: ['ends', 'raises'] } },
  smolagents: { script: 'with_smolagents.py', package: 'smolagents', cuts: { chat: ['asks', 'executes'] } },
};

/** The command of a framework's client and the version that is pinned; the command is undefined if it is not installed. */
function clientOf({ script, package: name }) {
  if (script.endsWith('.mjs')) {
    const { version } = JSON.parse(readFileSync(join(here, 'package-lock.json'))).packages[`node_modules/${name}`];
    return { version, command: process.execPath };
  }
  const [file, command] = name === 'instructor' ? ['requirements-instructor.txt', instructorPython] : ['requirements.txt', python];
  return { command, version: new RegExp(`^${name}==(\\S+)`, 'm').exec(readFileSync(join(here, file), 'utf8'))[1] };
}

/** Whether the bridge returns calls on Responses. */
async function hasResponses(url) {
  const response = await fetch(`${url}/v1/responses`, { method: 'POST', headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: MODEL, input: '[one|probe] go', tools: [{ type: 'function', name: 'get_news', parameters: { type: 'object' } }] }) });
  const { output } = await response.json();
  return output?.some(({ type }) => type === 'function_call') ?? false;
}

async function rowsOf({ script }, command, url, responses) {
  const child = spawn(command, [join(here, script)], { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env,
    RUNNEL_URL: `${url}/v1`, RUNNEL_RESPONSES: responses ? '1' : '0', OPENAI_AGENTS_DISABLE_TRACING: '1', LANGSMITH_TRACING: 'false', LITELLM_LOCAL_MODEL_COST_MAP: 'True',
    HF_HUB_OFFLINE: '1', NO_COLOR: '1' } });
  const bound = setTimeout(() => child.kill(), TIMEOUT_MS);
  const exit = new Promise((resolve) => child.on('exit', resolve));
  let errors = '';
  child.stderr.on('data', (data) => { errors += data; });
  const rows = [];
  for await (const line of createInterface({ input: child.stdout })) {
    const at = line.indexOf('{"api":');
    if (at >= 0) rows.push(JSON.parse(line.slice(at)));
  }
  const code = await exit;
  clearTimeout(bound);
  assert.equal(code, 0, errors);
  return rows;
}

const plain = (content) => (Array.isArray(content) ? content.map((part) => part.text).join('') : content ?? '');

const schemaOf = ({ response_format: format }) => format?.json_schema.schema;

/** A request of chat/completions reaches the server as it was sent. Defaults are left out, and schemas lose their name. */
function checkForwarded(sent, { body }) {
  assert.deepEqual(body.tools ?? [], sent.tools ?? []);
  assert.deepEqual(body.tool_choice ?? 'auto', sent.tool_choice ?? 'auto');
  assert.equal(body.parallel_tool_calls ?? null, sent.parallel_tool_calls ?? null);
  assert.deepEqual(schemaOf(body), schemaOf(sent));
  assert.equal(body.messages.length, sent.messages.length);
  sent.messages.forEach((message, i) => {
    const arrived = body.messages[i];
    assert.equal(arrived.role, message.role);
    assert.equal(plain(arrived.content), plain(message.content));
    assert.deepEqual(arrived.tool_calls, message.tool_calls?.map(({ id, type, function: { name, arguments: text } }) => (
      { id, type, function: { name, arguments: text } })));
    assert.equal(arrived.tool_call_id, message.tool_call_id);
  });
}

/** The same of a request of Responses, whose items become messages. */
function checkTranslated(sent, { body }) {
  assert.deepEqual((body.tools ?? []).map((tool) => tool.function), (sent.tools ?? []).map(
    ({ name, description, parameters, strict }) => ({ name, ...(description && { description }), parameters, ...(typeof strict === 'boolean' && { strict }) })));
  const items = Array.isArray(sent.input) ? sent.input : [];
  const of = (type) => items.filter((item) => item.type === type);
  assert.deepEqual(body.messages.flatMap((message) => message.tool_calls ?? []).map(({ id, function: { name, arguments: text } }) => [id, name, text]),
    of('function_call').map(({ call_id: id, name, arguments: text }) => [id, name, text]));
  assert.deepEqual(body.messages.filter(({ role }) => role === 'tool').map(({ tool_call_id: id, content }) => [id, plain(content)]),
    of('function_call_output').map(({ call_id: id, output }) => [id, plain(output)]));
}

/** The second turn has the calls of the first with their ids and arguments, and each result under the id of its call. */
function checkHistory([first, second], framework) {
  const { messages } = second.body;
  if (framework === 'smolagents') {
    // It tells the model about calls and results as text.
    for (const { id } of first.made) assert.ok(JSON.stringify(messages).includes(id));
    return;
  }
  const calls = messages.flatMap((message) => message.tool_calls ?? []);
  assert.deepEqual(calls.map(({ id, function: { name, arguments: text } }) => [id, name, JSON.parse(text)]),
    first.made.map(({ id, name, text }) => [id, name, JSON.parse(text)]));
  const results = messages.filter(({ role }) => role === 'tool').map(({ tool_call_id: id, content }) => [id, plain(content)]);
  const expected = { get_weather: WEATHER, get_time: TIME };
  assert.deepEqual(results.sort(), first.made.map(({ id, name }) => [id, expected[name]]).sort());
}

const wayOf = ({ api, stream }) => `${api}, ${stream ? 'stream' : 'one piece'}`;

const EXECUTED = {
  one: [['get_weather', { city: CITIES[0] }]],
  parallel: [['get_time', { city: CITIES[1] }], ['get_weather', { city: CITIES[0] }]],
  structured: [['get_weather', { city: CITIES[0] }]],
};

function checkTools(framework, row, turns) {
  assert.equal(row.error, null);
  if (framework === 'instructor') {
    assert.deepEqual(row.output, row.scenario === 'parallel' ? [REPORT, { city: CITIES[1] }] : REPORT);
    assert.equal(turns.length, 1);
    return;
  }
  if (framework === 'llm' && row.scenario === 'structured') {
    assert.deepEqual([row.output, turns.length], [REPORT, 1]);
    return;
  }
  assert.deepEqual(row.executed.sort(), EXECUTED[row.scenario]);
  assert.equal(turns.length, 2);
  checkHistory(turns, framework);
  if (row.scenario === 'structured') return assert.deepEqual(row.output, REPORT);
  for (const result of row.scenario === 'parallel' ? [WEATHER, TIME] : [WEATHER]) assert.ok(row.output.includes(result), row.output);
}

/** What the framework did with a call that was cut. */
function outcomeOf(row, turns) {
  if (row.executed.length > 0) return 'executes';
  if (row.error) return 'raises';
  return turns.length > 1 ? 'asks' : 'ends';
}

function expectedCut({ cuts, early }, { api, stream, scenario }) {
  const way = stream ? 1 : 0;
  if (scenario !== 'cut before the arguments') return cuts[api][way];
  return early?.[api]?.[way] ?? cuts[api][api === 'chat' ? 0 : way];
}

function checkRow(name, framework, row, turns, exchanges) {
  assert.ok(turns.length > 0);
  assert.equal(turns.length, exchanges.length, JSON.stringify(exchanges.at(-1)));
  turns.forEach((turn, i) => (row.api === 'chat' ? checkForwarded : checkTranslated)(exchanges[i].body, turn));
  if (row.scenario === 'parallel' && framework.inTurn?.includes(wayOf(row))) {
    assert.equal(row.error?.[0], 'ValidationError');
    return 'in turn';
  }
  const scenario = row.scenario.replace(', in turn', '');
  if (TOOLS.includes(scenario)) {
    checkTools(name, { ...row, scenario }, turns);
    return 'yes';
  }
  const outcome = outcomeOf(row, turns);
  assert.equal(outcome, expectedCut(framework, row), JSON.stringify(row));
  return outcome;
}

test('agent frameworks', { skip: !RUNNEL_AGENTS && 'RUNNEL_AGENTS is not set' }, async (t) => {
  const model = await startFakeModel();
  t.after(() => model.close());
  const runnel = await startRunnel({ engine: ['--engine=upstream', `--upstream_url=${model.url}`] });
  t.after(() => runnel.stop());
  const recorder = await startRecorder(runnel.url);
  t.after(() => recorder.close());
  const responses = await hasResponses(runnel.url);
  if (!responses) t.diagnostic('SKIPPED all rows of Responses: the bridge returns no calls there');
  const columns = [...TOOLS, ...CUTS];
  const table = [`| | ${columns.join(' | ')} |`, `|${'---|'.repeat(columns.length + 1)}`];
  for (const [name, framework] of Object.entries(FRAMEWORKS)) {
    const { version, command } = clientOf(framework);
    await t.test(`${name} ${version}`, { skip: !command && 'not installed' }, async (t) => {
      const rows = await rowsOf(framework, command, recorder.url, responses);
      const results = new Map();
      for (const row of rows) {
        const way = wayOf(row);
        if (!results.has(way)) results.set(way, {});
        await t.test(`${way}: ${row.scenario}`, () => {
          const same = ({ scenario, run }) => scenario === row.scenario && run === row.run;
          const exchanges = recorder.exchanges.filter(({ body }) => same(tagOf(body)));
          results.get(way)[row.scenario] = 'FAILS';
          try {
            results.get(way)[row.scenario] = checkRow(name, framework, row, model.turns.filter(same), exchanges);
          } catch (error) {
            for (const { sent, received } of exchanges) console.error(`${sent}\n${received}`);
            throw error;
          }
        });
      }
      assert.equal(results.size, 2 * Object.keys(framework.cuts).filter((api) => api === 'chat' || responses).length);
      for (const [way, notes] of results) table.push(`| ${name} ${version}, ${way} | ${columns.map((each) => notes[each] ?? '-').join(' | ')} |`);
    });
  }
  console.log(table.join('\n'));
});
