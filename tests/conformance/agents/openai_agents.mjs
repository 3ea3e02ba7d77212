// Rows of @openai/agents: https://openai.github.io/openai-agents-js/. Prints what running.py describes.
import { Agent, OpenAIProvider, Runner, setTracingDisabled, tool } from '@openai/agents';
import { z } from 'zod';

const { RUNNEL_URL: baseURL, RUNNEL_RESPONSES: withResponses } = process.env;
const MODEL = 'fake-model';
const NAME = 'openai-agents-js';
const TURNS = 3;
const SCENARIOS = ['one', 'parallel', 'structured', 'cut', 'cut, reported as complete', 'cut before the arguments'];
const Report = z.object({ city: z.string(), temperature: z.number().int() });
let executed = [];

const make = (name, parameters, say) => tool({ name, description: `calls ${name}`, parameters: z.object(parameters),
  execute: (input) => {
    executed.push([name, input]);
    return say(input);
  } });
const weather = make('get_weather', { city: z.string() }, ({ city }) => `weather of ${city}: sunny`);
const time = make('get_time', { city: z.string() }, ({ city }) => `time in ${city}: noon`);
const news = make('get_news', {}, () => 'news: none');
const TOOLS = { parallel: [weather, time], 'cut before the arguments': [news] };

async function ask(api, stream, scenario, prompt) {
  const runner = new Runner({ tracingDisabled: true,
    modelProvider: new OpenAIProvider({ apiKey: 'any-key', baseURL, useResponses: api === 'responses' }) });
  const agent = new Agent({ name: 'helper', instructions: 'You answer with tools.', model: MODEL, tools: TOOLS[scenario] ?? [weather],
    ...(scenario === 'structured' && { outputType: Report }) });
  const result = await runner.run(agent, prompt, { stream, maxTurns: TURNS });
  if (stream) {
    for await (const event of result) void event;
    await result.completed;
  }
  return result.finalOutput;
}

setTracingDisabled(true);
for (const api of withResponses === '1' ? ['chat', 'responses'] : ['chat']) {
  for (const scenario of SCENARIOS) {
    for (const stream of [false, true]) {
      const run = `${NAME}/${api}/${stream ? 'stream' : 'whole'}`;
      const row = { api, stream, scenario, run, output: null, error: null };
      executed = [];
      try {
        row.output = await ask(api, stream, scenario, `[${scenario}|${run}] What do you know about the city?`) ?? null;
      } catch (error) {
        row.error = [error.constructor.name, error.message];
      }
      console.log(JSON.stringify({ ...row, executed }));
    }
  }
}
