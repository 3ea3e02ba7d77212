// An inference server whose response depends on its request only, as --upstream_continue=replay needs it: the words of a
// script. A repeated request gets what it got before at once, as from a server that has kept its state.
import { createServer } from 'node:http';
import { Script } from './script.mjs';

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const MODEL = 'mock';
const MAX_BODY = 1 << 20;
/** Tokens sent so far, by prompt. */
const progress = new Map();

async function bodyOf(request) {
  let body = '';
  for await (const bytes of request) {
    body += bytes;
    if (body.length > MAX_BODY) throw new Error('a request that is too large');
  }
  return JSON.parse(body);
}

async function respond(response, { prompt }) {
  const script = new Script(JSON.parse(prompt));
  const common = { id: 'cmpl-1', object: 'text_completion', created: 1, model: MODEL };
  const send = (chunk) => response.write(`data: ${JSON.stringify({ ...common, ...chunk })}\n\n`);
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  response.flushHeaders();
  const known = progress.get(prompt) ?? 0;
  if (known === 0) await pause(script.firstTokenMs);
  for (let i = 0; i < script.tokens && !response.destroyed; i++) {
    if (i >= known) await pause(1000 / script.pace);
    send({ choices: [{ index: 0, text: script.delta(2 + i).content, finish_reason: null }] });
    progress.set(prompt, Math.max(progress.get(prompt) ?? 0, i + 1));
  }
  if (response.destroyed) return;
  send({ choices: [{ index: 0, text: '', finish_reason: 'stop' }] });
  send({ choices: [], usage: { prompt_tokens: 1, completion_tokens: script.tokens, total_tokens: 1 + script.tokens } });
  response.end('data: [DONE]\n\n');
}

const server = createServer(async (request, response) => {
  try {
    if (request.method === 'GET') {
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ object: 'list', data: [{ id: MODEL, object: 'model' }] }));
    } else {
      await respond(response, await bodyOf(request));
    }
  } catch (error) {
    response.destroy(error);
  }
});
server.listen(0, '127.0.0.1', () => process.send(server.address().port));
process.on('disconnect', () => process.exit(0));
