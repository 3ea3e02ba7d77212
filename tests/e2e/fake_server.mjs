// A small OpenAI-compatible inference server whose responses a test decides.
import { once } from 'node:events';
import http from 'node:http';

export const MODEL = 'fake-model';

const chunk = (delta, finish = null) =>
  ({ id: 'chatcmpl-1', object: 'chat.completion.chunk', created: 1, model: MODEL, choices: [{ index: 0, delta, finish_reason: finish }] });

/** Responds with a stream of these tokens. */
export function respondWithTokens(response, tokens) {
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  const usage = { prompt_tokens: 3, completion_tokens: tokens.length, total_tokens: 3 + tokens.length };
  const chunks = [...tokens.map((content) => chunk({ content })), chunk({}, 'stop'), { ...chunk({}), choices: [], usage }];
  for (const each of chunks) response.write(`data: ${JSON.stringify(each)}\n\n`);
  response.end('data: [DONE]\n\n');
}

export function respondWithError(response, status, error, headers = {}) {
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(JSON.stringify({ error }));
}

/**
 * Listens on `port` (0: any). `respond(response, body, request)` answers each POST; GET /v1/models lists MODEL.
 * `requests` has the bodies so far.
 */
export async function startFakeServer(respond, port = 0) {
  const requests = [];
  const server = http.createServer(async (request, response) => {
    const parts = [];
    for await (const part of request) parts.push(part);
    if (request.method === 'GET') {
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ object: 'list', data: [{ id: MODEL, object: 'model' }] }));
      return;
    }
    const body = JSON.parse(Buffer.concat(parts));
    requests.push({ path: request.url, headers: request.headers, body });
    respond(response, body, request);
  }).listen(port, '127.0.0.1');
  await once(server, 'listening');
  return {
    requests,
    port: server.address().port,
    url: `http://127.0.0.1:${server.address().port}/v1`,
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}
