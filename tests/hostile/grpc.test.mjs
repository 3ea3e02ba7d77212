// Attacks on the gRPC port.
import assert from 'node:assert/strict';
import { readGrpc } from '../chaos/readers/grpc.mjs';
import { Script } from '../chaos/script.mjs';
import { suite } from './arena.mjs';
import { rapidReset } from './grpc_attacks.mjs';
import { END_HEADERS, H2Connection, PREFACE, TYPE, callHeaders, frame } from './h2.mjs';
import { Connection, SLACK, until } from './raw.mjs';

const REFUSED_STREAM = 7;
const ENHANCE_YOUR_CALM = 11;
const MAX_CONNECTIONS = 1024; // the default of --max_grpc_connections
const HANDSHAKE_MS = 10_000;

/** A complete call of a well-behaved client. */
async function call(address) {
  let last;
  const script = new Script({ seed: 7, tokens: 5, pace: 100 });
  for await (const event of readGrpc(address, { script, after: 0, idleMs: 20_000 })) last = event;
  assert.equal(last?.type, 'done');
}

suite('the gRPC port', {}, async (attack, arena) => {
  const address = arena.grpc;
  const path = '/runnel.v1.InferenceService/Generate';

  await attack('more streams than one connection may have', async () => {
    const connection = await H2Connection.open(address);
    const limit = connection.maxConcurrentStreams;
    assert.ok(limit > 0 && limit <= 10_000, `MAX_CONCURRENT_STREAMS is ${limit}`);
    const headers = callHeaders(path);
    const frames = Array.from({ length: limit + 100 }, (_, i) => frame(TYPE.headers, END_HEADERS, 2 * i + 1, headers));
    await connection.raw.send(Buffer.concat(frames));
    // gRPC 1.51 ends the connection.
    const refused = () => connection.resets.get(REFUSED_STREAM) >= 100 || connection.goaway !== undefined ||
      connection.raw.ended;
    await until(5000, 'the refusal of the streams above the limit', refused);
    connection.raw.destroy();
    await call(address);
  });

  await attack('streams that are reset as soon as they are opened', async () => {
    // gRPC 1.51 does not limit resets, and each costs it as much as a call. The attack sends a fixed number, not for a
    // fixed time, so that a slow machine does not get more work than it can do.
    const { streams, kib } = await rapidReset(arena, { most: 10_000 });
    assert.ok(streams >= 10_000, `only ${streams} streams`);
    if (SLACK === 1) assert.ok(kib < 128 << 10, `${kib} KiB more`);
    await call(address);
  });

  await attack('pings without end', async () => {
    const connection = await H2Connection.open(address);
    const ping = frame(TYPE.ping, 0, 0, Buffer.alloc(8));
    for (let i = 0; i < 100 && connection.goaway === undefined; i++) await connection.raw.send(ping);
    await until(5000, 'GOAWAY', () => connection.goaway !== undefined || connection.raw.ended);
    connection.raw.destroy();
    // A reset that follows GOAWAY may overtake it.
    assert.ok([ENHANCE_YOUR_CALM, undefined].includes(connection.goaway), `GOAWAY with ${connection.goaway}`);
  });

  await attack('a header block without end', async () => {
    const before = arena.residentKb(arena.inference);
    const connection = await H2Connection.open(address);
    await connection.raw.send(frame(TYPE.headers, 0, 1, callHeaders(path)));
    // Literals without indexing: x: 1,000 bytes.
    const field = Buffer.concat([Buffer.from([0, 1, 120, 0x7f, 0xe9, 0x06]), Buffer.alloc(1000, 97)]);
    const more = frame(TYPE.continuation, 0, 1, Buffer.concat(Array.from({ length: 15 }, () => field)));
    let kib = 0;
    for (let sent = 0; sent < 16 << 20 && (await connection.raw.send(more)); sent += more.length) {
      kib = Math.max(kib, arena.residentKb(arena.inference) - before);
    }
    connection.raw.destroy();
    if (SLACK === 1) assert.ok(kib < 16 << 10, `${kib} KiB more`);
    await call(address);
  });

  await attack('more connections than the port may have, all silent', async () => {
    const all = await Promise.all(Array.from({ length: MAX_CONNECTIONS + 200 }, () => Connection.open(address)));
    const refused = () => arena.metric(arena.inference, 'runnel_grpc_connections_refused_total');
    await until(5000, 'the refusal of the connections above the limit', async () => (await refused()) > 0);
    const open = await arena.metric(arena.inference, 'runnel_grpc_connections');
    assert.ok(open > 0 && open <= MAX_CONNECTIONS, `${open} connections`);
    const closed = await Promise.all(all.map((connection) => connection.closed(HANDSHAKE_MS + 5000)));
    for (const connection of all) connection.destroy();
    assert.equal(closed.filter((ms) => ms === undefined).length, 0, 'left open');
    await call(address);
  });

  await attack('more connections than the port may have, all speaking HTTP/2', async () => {
    const all = await Promise.all(Array.from({ length: MAX_CONNECTIONS + 200 }, () => Connection.open(address)));
    await Promise.all(all.map((connection) => connection.send(PREFACE)));
    // The bridges' own connections count towards the limit, so at least 200 of these must go.
    await until(5000, 'the end of the connections above the limit',
      () => all.filter(({ ended }) => ended).length >= 200);
    for (const connection of all) connection.destroy();
    await call(address);
  });

  await attack('half a frame, and bytes that are not HTTP/2', async () => {
    const silent = await H2Connection.open(address);
    await silent.raw.send(frame(TYPE.headers, END_HEADERS, 1, callHeaders(path)).subarray(0, 20));
    for (const bytes of [Buffer.from('GET / HTTP/1.1\r\nHost: a\r\n\r\n'), Buffer.alloc(100_000, 255)]) {
      const connection = await Connection.open(address);
      await connection.send(bytes);
      const ms = await connection.closed(HANDSHAKE_MS + 5000);
      connection.destroy();
      assert.notEqual(ms, undefined, 'left open');
    }
    await call(address);
    silent.raw.destroy();
  });
});
