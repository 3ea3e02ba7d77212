// A hostile inference server: each attack is a way to respond, by raw bytes. Well-behaved requests share its connections.
import net from 'node:net';
import { gzipSync } from 'node:zlib';

const MIB = 1 << 20;
const EVENT_STREAM = 'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n';
const CHUNKED = `${EVENT_STREAM}transfer-encoding: chunked\r\n\r\n`;

const event = (data) => `data: ${typeof data === 'string' ? data : JSON.stringify(data)}\n\n`;
const delta = (content, index = 0) => event({ choices: [{ index, delta: { content }, finish_reason: null }] });
const calls = (...list) => event({ choices: [{ index: 0, delta: { tool_calls: list }, finish_reason: null }] });
const call = (index, more) => ({ index, id: `call_${index}`, type: 'function', function: { name: 'search', arguments: '{}' }, ...more });
const FINISH = event({ choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] });
const DONE = event('[DONE]');
const chunk = (text) => `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`;
const LAST = '0\r\n\r\n';

export const textOf = (name) => `The text of ${name}.`;
const events = (name) => [delta(textOf(name).slice(0, 4)), delta(textOf(name).slice(4)), FINISH, DONE];
const whole = (name) => CHUNKED + events(name).map(chunk).join('') + LAST;
const body = (text, lines = '') => `${EVENT_STREAM}${lines}content-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`;
const json = (status, text, lines = '') =>
  `HTTP/1.1 ${status}\r\ncontent-type: application/json\r\n${lines}content-length: ${text.length}\r\n\r\n${text}`;

/** Writes `piece` as often as the socket takes it, until the other side closes the connection or after `most` times. */
function flood(socket, piece, most) {
  let written = 0;
  const more = () => {
    while (written++ < most && !socket.destroyed) if (!socket.write(piece)) return socket.once('drain', more);
  };
  more();
}

const zeros = gzipSync(Buffer.alloc(64 * MIB));

/**
 * By name: `respond(socket, name, server)`, and what the generation must be: `text` if it is complete, otherwise a code.
 * `then`: what the server does when the next request arrives on the connection, if that is used again; `alone`: nothing
 * else is requested meanwhile.
 */
export const ATTACKS = {
  'an interim response first': { text: true, respond: (socket, name) => socket.write(`HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n${whole(name)}`) },
  gzip: { text: true, respond: (socket, name) => {
    const bytes = gzipSync(events(name).join(''));
    socket.write(`${EVENT_STREAM}content-encoding: gzip\r\ncontent-length: ${bytes.length}\r\n\r\n`);
    socket.write(bytes);
  } },
  'an HTTP/1.0 response': { text: true, respond: (socket, name) =>
    socket.end(`HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n${events(name).join('')}`) },
  'no end after [DONE]': { text: true, respond: (socket, name) => socket.write(CHUNKED + events(name).map(chunk).join('')) },
  'garbage after [DONE]': { text: true, respond: (socket, name) => socket.write(`${CHUNKED + events(name).map(chunk).join('')  }zz\r\n`) },
  'another response behind the first': { text: true, respond: (socket, name) => socket.write(whole(name) + whole('a stranger')) },
  // Alone, because a request that is already on its way would rightly be answered by it.
  'another response on the idle connection': { text: true, alone: true, respond: (socket, name, server) => {
    socket.write(whole(name));
    server.stray = new Promise((resolve) => setTimeout(() => socket.write(whole('a stranger'), resolve), 50));
  } },
  'the idle connection times out with 408 as it is used': { text: true, respond: (socket, name) => socket.write(whole(name)),
    then: (socket) => socket.end(json('408 Request Timeout', '{}', 'connection: close\r\n')) },

  'a last chunk before the end': { code: 'engine_unavailable', respond: (socket, name) => socket.write(CHUNKED + chunk(events(name)[0]) + LAST),
    then: (socket) => socket.end(events('a stranger').map(chunk).join('')) },
  'a content-length below the length': { code: 'engine_unavailable', respond: (socket, name) =>
    socket.write(`${EVENT_STREAM}content-length: ${events(name)[0].length}\r\n\r\n${events(name).join('')}`) },
  'a content-length above the length': { code: 'engine_unavailable', respond: (socket, name) =>
    socket.end(`${EVENT_STREAM}content-length: 100000\r\n\r\n${events(name)[0]}`) },
  'two lengths': { code: 'engine_failed', respond: (socket, name) =>
    socket.write(`${EVENT_STREAM}content-length: 5\r\ncontent-length: 6\r\n\r\n${events(name).join('')}`) },
  'a length and chunks': { code: 'engine_failed', respond: (socket, name) =>
    socket.write(`${EVENT_STREAM}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n${events(name).map(chunk).join('')}${LAST}`) },
  'no response': { code: 'engine_unavailable', respond: (socket) => socket.end() },
  'a reset': { code: 'engine_unavailable', respond: (socket) => socket.resetAndDestroy() },
  'an empty stream': { code: 'engine_unavailable', respond: (socket) => socket.write(body('')) },
  'only [DONE]': { code: 'engine_unavailable', respond: (socket) => socket.write(body(DONE)) },
  'silence': { code: 'engine_timeout', respond: () => {} },
  'a header byte by byte': { code: 'engine_timeout', respond: (socket) => drip(socket, `HTTP/1.1 200 OK\r\n${  'a: b\r\n'.repeat(10)}`) },
  'endless comments': { code: 'engine_timeout', respond: (socket) => {
    socket.write(`${EVENT_STREAM  }\r\n`);
    drip(socket, ': keep-alive\n\n'.repeat(1000));
  } },
  'endless empty lines': { code: 'engine_timeout', respond: (socket) => {
    socket.write(`${EVENT_STREAM  }\r\n`);
    drip(socket, '\n'.repeat(100_000));
  } },
  'not HTTP': { code: 'engine_failed', respond: (socket) => socket.write('SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n') },
  'HTTP/2': { code: 'engine_failed', respond: (socket) => socket.write(`${Buffer.from('000012040000000000', 'hex').toString()  }\r\n`) },
  'a line of 1 MiB': { code: 'engine_failed', respond: (socket) => socket.write(`HTTP/1.1 200 OK\r\na: ${'x'.repeat(MIB)}`) },
  '1,000 header fields': { code: 'engine_failed', respond: (socket) => socket.write(`${EVENT_STREAM + 'a: b\r\n'.repeat(1000)  }\r\n`) },
  'endless interim responses': { code: 'engine_failed', respond: (socket) => flood(socket, 'HTTP/1.1 103 Early Hints\r\na: b\r\n\r\n'.repeat(100), 10_000) },
  '101 Switching Protocols': { code: 'engine_failed', respond: (socket, name) => socket.write(`HTTP/1.1 101 Switching Protocols\r\n\r\n${whole(name)}`) },
  'a redirect': { code: 'engine_failed', respond: (socket, _name, { address }) =>
    socket.write(json('302 Found', '{}', `location: http://${address}/redirected\r\n`)) },
  'JSON with status 200': { code: 'engine_failed', respond: (socket) => socket.write(json('200 OK', '{"choices":[]}')) },
  'HTML with status 500': { code: 'engine_failed', respond: (socket) => socket.write('HTTP/1.1 500 X\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>') },
  'no size of a chunk': { code: 'engine_failed', respond: (socket) => socket.write(`${CHUNKED}zz\r\n`) },
  'a negative size of a chunk': { code: 'engine_failed', respond: (socket) => socket.write(`${CHUNKED}-1\r\n`) },
  'a chunk of 2^64 bytes': { code: 'engine_failed', respond: (socket) => socket.write(`${CHUNKED}10000000000000000\r\n`) },
  'a chunk that is longer than its size': { code: 'engine_failed', respond: (socket, name) => socket.write(`${CHUNKED}5\r\n${events(name)[0]}\r\n`) },
  'a size of a chunk without end': { code: 'engine_failed', respond: (socket) => {
    socket.write(CHUNKED);
    flood(socket, '0'.repeat(1000), 1000);
  } },
  'a gzip bomb': { code: 'engine_failed', respond: (socket) => {
    socket.write(`${EVENT_STREAM}content-encoding: gzip\r\ncontent-length: ${zeros.length}\r\n\r\n`);
    socket.write(zeros);
  } },
  'corrupt gzip': { code: 'engine_failed', respond: (socket) => socket.write(body('this is not gzip', 'content-encoding: gzip\r\n')) },
  'an unknown coding': { code: 'engine_failed', respond: (socket) => socket.write(body(DONE, 'content-encoding: br\r\n')) },
  'an event without end': { code: 'engine_failed', respond: (socket) => {
    socket.write(`${EVENT_STREAM}\r\ndata: `);
    flood(socket, 'x'.repeat(64 << 10), 1000);
  } },
  'a text without end': { code: 'engine_failed', respond: (socket) => {
    socket.write(`${EVENT_STREAM}\r\n`);
    flood(socket, delta('x'.repeat(64 << 10)), 1000);
  } },
  '100,000 calls': { code: 'too_many_parts', respond: (socket) => {
    socket.write(`${EVENT_STREAM}\r\n`);
    flood(socket, Array.from({ length: 1000 }, (_, i) => calls(call(i))).join(''), 100);
  } },
  '100,000 calls in one delta': { code: 'too_many_parts', respond: (socket) =>
    socket.write(body(calls(...Array.from({ length: 10_000 }, (_, i) => call(i))))) },
  '100,000 calls without an index': { code: 'too_many_parts', respond: (socket) => {
    socket.write(`${EVENT_STREAM}\r\n`);
    flood(socket, Array.from({ length: 1000 }, (_, i) => calls(call(undefined, { id: `c${i}` }))).join(''), 100);
  } },
  'calls without a name': { code: 'unsupported_output', respond: (socket) =>
    socket.write(body(calls({ index: 0, id: 'a', function: { arguments: '{"a":1}' } }) + FINISH + DONE)) },
  'arguments without end': { code: 'engine_failed', respond: (socket) => {
    socket.write(`${EVENT_STREAM}\r\n${calls(call(0, { function: { name: 'search', arguments: '{"a":"' } }))}`);
    flood(socket, calls({ index: 0, function: { arguments: 'x'.repeat(64 << 10) } }), 1000);
  } },
  'arguments without end before the name': { code: 'engine_failed', respond: (socket) => {
    socket.write(`${EVENT_STREAM}\r\n`);
    flood(socket, calls({ index: 0, function: { arguments: 'x'.repeat(64 << 10) } }), 1000);
  } },
  'reasoning without end': { code: 'answer_too_large', respond: (socket) => {
    socket.write(`${EVENT_STREAM}\r\n`);
    flood(socket, event({ choices: [{ index: 0, delta: { reasoning_content: 'x'.repeat(64 << 10) } }] }), 1000);
  } },
  '100,000 changes of the kind': { code: 'too_many_parts', respond: (socket) => {
    socket.write(`${EVENT_STREAM}\r\n`);
    flood(socket, (event({ choices: [{ index: 0, delta: { reasoning_content: 'a' } }] }) + delta('b')).repeat(1000), 50);
  } },
  'control characters in a name': { code: 'unsupported_output', respond: (socket) =>
    socket.write(body(calls(call(0, { function: { name: 'a\u0000\r\nb', arguments: '{}' } })) + FINISH + DONE)) },
  'a name of 1 MiB': { code: 'engine_failed', respond: (socket) =>
    socket.write(body(calls(call(0, { function: { name: 'a'.repeat(MIB), arguments: '{}' } })) + FINISH + DONE)) },
  // Each is the call of some tool, for which a text completion has no place.
  'a call at index -1': { code: 'unsupported_output', respond: (socket) => socket.write(body(calls(call(-1)) + FINISH + DONE)) },
  'a call at index 2^64': { code: 'unsupported_output', respond: (socket) => socket.write(body(calls(call(2 ** 64)) + FINISH + DONE)) },
  'a refusal of a text completion': { code: 'unsupported_output', respond: (socket) =>
    socket.write(body(event({ choices: [{ index: 0, delta: { refusal: 'No.' } }] }) + FINISH + DONE)) },
  'calls that are no list': { code: 'unsupported_output', respond: (socket) =>
    socket.write(body(event({ choices: [{ index: 0, delta: { tool_calls: { 0: call(0) } } }] }) + FINISH + DONE)) },
  'an event that is not JSON': { code: 'engine_failed', respond: (socket) => socket.write(body(event('{"choices":['))) },
  'JSON of 100,000 levels': { code: 'engine_failed', respond: (socket) => socket.write(body(event('['.repeat(100_000)))) },
  'a choice that was not requested': { code: 'engine_failed', respond: (socket) => socket.write(body(delta('x', 7))) },
  'text after the end of its choice': { code: 'engine_failed', respond: (socket, name) =>
    socket.write(body(events(name).slice(0, 3).join('') + delta('more') + DONE)) },
  'an error inside the stream': { code: 'engine_failed', respond: (socket, name) =>
    socket.write(body(events(name)[0] + event({ error: { message: 'out of memory' } }))) },
};
export const GOOD = 'a good response';

async function drip(socket, text) {
  for (const byte of text) {
    if (socket.destroyed) return;
    socket.write(byte);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Listens, and responds to each POST by the attack that its prompt names. `paths` has the paths of all requests. */
export async function startHostileServer() {
  const server = { paths: [], connections: new Set() };
  const listener = net.createServer((socket) => {
    server.connections.add(socket);
    socket.on('close', () => server.connections.delete(socket));
    socket.on('error', () => {});
    let input = '';
    let then;
    socket.on('data', (bytes) => {
      input += bytes;
      const [, head, rest] = /^([^]*?\r\n\r\n)([^]*)$/.exec(input) ?? [];
      const length = Number(/content-length: (\d+)/i.exec(head ?? '')?.[1] ?? 0);
      if (head === undefined || rest.length < length) return;
      input = '';
      server.paths.push(head.split(' ')[1]);
      if (head.startsWith('GET')) return socket.write(json('200 OK', '{"data":[{"id":"m"}]}'));
      if (then !== undefined) return then(socket);
      const { prompt } = JSON.parse(rest);
      const [name] = prompt.split('#');
      const attack = ATTACKS[name] ?? { respond: () => socket.write(whole(prompt)) };
      then = attack.then;
      attack.respond(socket, prompt, server);
    });
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => listener.once('listening', resolve));
  server.address = `127.0.0.1:${listener.address().port}`;
  server.close = () => {
    listener.close();
    for (const socket of server.connections) socket.destroy();
  };
  return server;
}
