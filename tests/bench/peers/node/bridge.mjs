// A typical bridge in Node: one gRPC stream for each reader, node:http for SSE, ws for WebSocket.
//
//   node bridge.mjs PORT SERVICE
//
// One process, like one of Runnel's io threads, because the benchmark compares CPU time per event. Uses Node's
// backpressure: the gRPC stream pauses while the reader's socket is full.
import { createServer } from 'node:http';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';
import { WebSocketServer } from 'ws';

const [port, service] = process.argv.slice(2);
const proto = join(dirname(fileURLToPath(import.meta.url)), '../../../../proto');
const definition = loader.loadSync('runnel/v1/inference.proto', { includeDirs: [proto], longs: Number, enums: String, oneofs: true });
const { InferenceService } = grpc.loadPackageDefinition(definition).runnel.v1;
const client = new InferenceService(service, grpc.credentials.createInsecure());

function requestOf(body) {
  return {
    prompt: body.prompt,
    maxTokens: body.max_tokens,
    sampling: { seed: body.seed },
    detachTimeout: { seconds: 0 },
    metadata: body.metadata,
  };
}

const hex = (crc) => crc.toString(16).padStart(8, '0');

// The same object as Runnel's event.
function toJson(event) {
  const base = { type: event.payload, gen: event.generationId, seq: event.seq };
  if (event.firstSeq) base.first_seq = event.firstSeq;
  const ms = Math.floor(event.elapsedUs / 1000);
  const { delta, done, started, failed } = event;
  switch (event.payload) {
    case 'delta':
      return { ...base, choice: delta.choice, text: delta.text, tokens: delta.tokens, ms };
    case 'started':
      return { ...base, model: started.model, prompt_tokens: started.promptTokens, ms };
    case 'done':
      return {
        ...base, final: true, events: done.eventCount, ms,
        choices: done.choices.map((c) => ({ index: c.index, text_bytes: c.textBytes, crc32: hex(c.textCrc32) })),
      };
    default:
      return { ...base, final: true, error: failed };
  }
}

const server = createServer((request, response) => {
  if (request.method !== 'POST' || request.url !== '/v1/generations') return response.writeHead(404).end();
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    const call = client.generate(requestOf(JSON.parse(Buffer.concat(chunks))));
    response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache, no-transform' });
    call.on('data', ({ event }) => {
      const json = toJson(event);
      const more = response.write(`id: ${json.gen}:${json.seq}\nevent: ${json.type}\ndata: ${JSON.stringify(json)}\n\n`);
      if (!more) call.pause();
    });
    response.on('drain', () => call.resume());
    response.on('close', () => call.cancel());
    call.on('end', () => response.end());
    call.on('error', () => response.destroy());
  });
});

const MOST_BUFFERED = 64 * 1024;

const sockets = new WebSocketServer({ server, path: '/v1/ws', handleProtocols: () => 'runnel.v1', perMessageDeflate: false });
sockets.on('connection', (socket) => {
  const calls = new Set();
  socket.on('message', (data) => {
    const message = JSON.parse(data);
    if (message.type !== 'generate') return;
    const call = client.generate(requestOf(message.body));
    calls.add(call);
    call.on('data', ({ event }) => {
      socket.send(JSON.stringify(toJson(event)), () => {
        if (call.isPaused() && socket.bufferedAmount === 0) call.resume();
      });
      if (socket.bufferedAmount > MOST_BUFFERED) call.pause();
    });
    call.on('end', () => calls.delete(call));
    call.on('error', () => socket.terminate());
  });
  socket.on('close', () => calls.forEach((call) => call.cancel()));
  socket.on('error', () => socket.terminate());
});

server.listen({ port: Number(port), host: '127.0.0.1', backlog: 4096 });
