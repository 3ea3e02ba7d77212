// Rows of LangChain in JavaScript: https://docs.langchain.com/oss/javascript/langchain/agents
import { ChatOpenAI } from '@langchain/openai';
import { createAgent, tool } from 'langchain';
import { KEY, MODEL, Report, URL, runRows, toolsOf } from './running.mjs';

// Steps of the graph: each turn is a call of the model and one of its tools.
const STEPS = 6;

const make = (name, schema, execute) => tool(execute, { name, description: `calls ${name}`, schema });

async function ask(api, stream, scenario, prompt) {
  const model = new ChatOpenAI({ model: MODEL, apiKey: KEY, maxRetries: 0, useResponsesApi: api === 'responses', configuration: { baseURL: URL } });
  const agent = createAgent({ model, tools: toolsOf(scenario, make), systemPrompt: 'You answer with tools.',
    ...(scenario === 'structured' && { responseFormat: Report }) });
  const asked = { messages: [{ role: 'user', content: prompt }] };
  const config = { recursionLimit: STEPS };
  let state;
  if (stream) {
    for await (const [mode, value] of await agent.stream(asked, { ...config, streamMode: ['messages', 'values'] })) {
      if (mode === 'values') state = value;
    }
  } else {
    state = await agent.invoke(asked, config);
  }
  return state.structuredResponse ?? state.messages.at(-1).text;
}

await runRows('langchain-js', ask);
