// A proxy that records what a client sends and receives.
import { once } from 'node:events';
import http from 'node:http';

/** `exchanges` has, for each POST, its path, its body as JSON, and the bytes of its response so far. */
export async function startRecorder(target) {
  const exchanges = [];
  const server = http.createServer(async (request, response) => {
    const parts = [];
    for await (const part of request) parts.push(part);
    const body = Buffer.concat(parts);
    const exchange = { path: request.url, received: '' };
    if (request.method === 'POST') exchanges.push(Object.assign(exchange, { sent: body.toString(), body: JSON.parse(body) }));
    const onward = http.request(`${target}${request.url}`, { method: request.method, headers: { ...request.headers, host: new URL(target).host } });
    response.on('close', () => onward.destroy());
    onward.on('error', () => response.destroy());
    onward.on('response', (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.on('data', (data) => { exchange.received += data; });
      answer.on('error', () => response.destroy());
      answer.pipe(response);
    });
    onward.end(body);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    exchanges,
    url: `http://127.0.0.1:${server.address().port}`,
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}
