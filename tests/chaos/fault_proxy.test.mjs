// The fault proxy makes the faults that it claims to make: the other tests prove nothing otherwise.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import test from 'node:test';
import { freePorts } from '../e2e/processes.mjs';
import { FaultProxy } from './fleet.mjs';

const SENT = Buffer.alloc(5000, 'abcdefghij');

/** A server behind a proxy that sends SENT on each connection and then ends it, or not, as `ends` says. */
async function through(t, flags, { ends = true } = {}) {
  const seen = [];
  const server = net.createServer((socket) => {
    const connection = { heard: '', ended: false };
    seen.push(connection);
    socket.on('error', () => (connection.ended = true));
    socket.on('close', () => (connection.ended = true));
    socket.on('end', () => (connection.ended = true));
    socket.on('data', (bytes) => (connection.heard += bytes));
    ends ? socket.end(SENT) : socket.write(SENT);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const [port] = await freePorts(1);
  const route = [`127.0.0.1:${port}`, `127.0.0.1:${server.address().port}`];
  const proxy = new FaultProxy([route], ['--share=1', '--up_share=0', ...flags]);
  await proxy.start();
  let counts;
  const stop = async () => (counts ??= await proxy.stop());
  t.after(async () => {
    server.close();
    await stop();
  });
  return { port, seen, stop };
}

/** What a client receives: the bytes, the number of pieces, and the end; `silent` if nothing came for `silenceMs`. */
function read(port, { silenceMs = 10_000, says = 'hello' } = {}) {
  return new Promise((resolve) => {
    const parts = [];
    const socket = net.connect(port, '127.0.0.1');
    const done = (end) => {
      socket.destroy();
      resolve({ bytes: Buffer.concat(parts), parts, end });
    };
    socket.setTimeout(silenceMs, () => done('silent'));
    socket.on('error', ({ code }) => done(code));
    socket.on('end', () => done('end'));
    socket.on('data', (bytes) => parts.push(bytes));
    socket.write(says);
  });
}

async function many(port, count, options) {
  const all = [];
  for (let i = 0; i < count; i++) all.push(await read(port, options));
  return all;
}

const lengths = (all) => all.map(({ bytes }) => bytes.length);

test('without a fault all bytes and the end of the connection pass', async (t) => {
  const { port, stop } = await through(t, []);
  const { bytes, end } = await read(port);
  assert.deepEqual(bytes, SENT);
  assert.equal(end, 'end');
  assert.deepEqual(new Set(Object.values(await stop())), new Set([1, 0]));
});

// libuv reports a reset as an end if all bytes before it were read.
for (const [fault, ends] of [['cut', ['end']], ['truncate', ['end']], ['reset', ['ECONNRESET', 'end']]]) {
  test(`${fault}: a beginning, then the end; the same seed strikes at the same places`, async (t) => {
    const flags = [`--faults=${fault}`, '--max_down_bytes=4999', '--linger=200ms'];
    const first = await through(t, [...flags, '--seed=5'], { ends: false });
    const again = await through(t, [...flags, '--seed=5'], { ends: false });
    const other = await through(t, [...flags, '--seed=6'], { ends: false });
    const [a, b, c] = [await many(first.port, 8), await many(again.port, 8), await many(other.port, 8)];
    for (const each of a) {
      assert.ok(ends.includes(each.end), `${each.end} after ${each.bytes.length} bytes`);
      assert.ok(each.bytes.length < SENT.length && SENT.subarray(0, each.bytes.length).equals(each.bytes));
    }
    // A reset may overtake the bytes sent before it.
    if (fault !== 'reset') {
      assert.deepEqual(lengths(a), lengths(b));
      assert.notDeepEqual(lengths(a), lengths(c));
    }
    assert.equal((await first.stop())[fault], 8);
  });
}

for (const fault of ['half_open', 'stall']) {
  test(`${fault}: a beginning, then silence, and the server does not learn that the client disconnected`, async (t) => {
    const flags = [`--faults=${fault}`, '--max_down_bytes=4999', '--linger=60s'];
    const { port, seen } = await through(t, flags, { ends: false });
    const { bytes, end } = await read(port, { silenceMs: 300 });
    assert.equal(end, 'silent');
    assert.ok(bytes.length < SENT.length);
    await read(port, { silenceMs: 300 });
    assert.equal(seen[0].ended, false);
  });
}

test('delay, throttle and buffer change nothing but the time', async (t) => {
  for (const fault of ['delay', 'throttle', 'buffer']) {
    const { port, stop } = await through(t, [`--faults=${fault}`, '--max_delay=50ms']);
    for (const { bytes, end } of await many(port, 4)) {
      assert.deepEqual(bytes, SENT, fault);
      assert.equal(end, 'end', fault);
    }
    assert.ok((await stop())[fault] >= 1, fault);
  }
});

test('duplicate: the server receives the client\'s bytes twice, the client the server\'s bytes once', async (t) => {
  const { port, seen } = await through(t, ['--faults=duplicate'], { ends: true });
  const { bytes } = await read(port, { says: 'once' });
  assert.deepEqual(bytes, SENT);
  const deadline = Date.now() + 10_000;
  while (!(seen.length === 2 && seen.every(({ heard }) => heard === 'once'))) {
    assert.ok(Date.now() < deadline, JSON.stringify(seen));
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
});

test('drip changes nothing but the time', async (t) => {
  const { port, stop } = await through(t, ['--faults=drip']);
  const { bytes, parts, end } = await read(port);
  assert.deepEqual([bytes, end], [SENT, 'end']);
  assert.ok(parts.length > 20, `${parts.length} parts`);
  assert.equal((await stop()).drip, 1);
});

for (const fault of ['garbage', 'repeat']) {
  test(`${fault}: bytes are added at one place, and all others are passed on`, async (t) => {
    const { port, stop } = await through(t, [`--faults=${fault}`, '--max_down_bytes=4000']);
    for (const { bytes, end } of await many(port, 8)) {
      assert.equal(end, 'end');
      const added = bytes.length - SENT.length;
      assert.ok(added >= 1 && added <= 40, `${added} bytes`);
      const addedAt = (place) => bytes.subarray(0, place).equals(SENT.subarray(0, place)) &&
        bytes.subarray(place + added).equals(SENT.subarray(place));
      assert.ok(Array.from(SENT.keys()).some(addedAt), `${bytes}`);
    }
    assert.equal((await stop())[fault], 8);
  });
}

test('close_idle: what the client sends after a response ends the connection, and does not reach the server', async (t) => {
  const { port, seen, stop } = await through(t, ['--faults=close_idle', '--linger=200ms'], { ends: false });
  const socket = net.connect(port, '127.0.0.1');
  t.after(() => socket.destroy());
  let received = 0;
  while (received < SENT.length) received += (await once(socket, 'data'))[0].length;
  socket.write('again');
  await once(socket, 'end');
  assert.equal(seen[0].heard, '');
  assert.equal((await stop()).close_idle, 1);
});
