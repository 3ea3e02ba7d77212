// Rows of @openai/agents: https://openai.github.io/openai-agents-js/
import { Agent, OpenAIProvider, Runner, setTracingDisabled, tool } from '@openai/agents';
import { KEY, MODEL, Report, URL, runRows, toolsOf } from './running.mjs';

const TURNS = 3;

const make = (name, parameters, execute) => tool({ name, description: `calls ${name}`, parameters, execute });

async function ask(api, stream, scenario, prompt) {
  const runner = new Runner({ tracingDisabled: true,
    modelProvider: new OpenAIProvider({ apiKey: KEY, baseURL: URL, useResponses: api === 'responses' }) });
  const agent = new Agent({ name: 'helper', instructions: 'You answer with tools.', model: MODEL, tools: toolsOf(scenario, make),
    ...(scenario === 'structured' && { outputType: Report }) });
  const result = await runner.run(agent, prompt, { stream, maxTurns: TURNS });
  if (stream) {
    for await (const event of result) void event;
    await result.completed;
  }
  return result.finalOutput;
}

setTracingDisabled(true);
await runRows('openai-agents-js', ask);
