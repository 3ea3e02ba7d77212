// The proxy makes the partitions that it claims to make.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import test from 'node:test';
import { freePorts } from '../e2e/processes.mjs';
import { SwitchProxy } from './switch_proxy.mjs';

async function echoServer(t, name) {
  const server = net.createServer((socket) => {
    t.after(() => socket.destroy());
    socket.on('error', () => {});
    socket.on('data', (bytes) => socket.write(`${name}${bytes}`));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  return server.address().port;
}

async function through(t) {
  const targets = [await echoServer(t, 'a'), await echoServer(t, 'b')];
  const [port] = await freePorts(1);
  const proxy = await SwitchProxy.start({ way: [port, targets[0]] });
  t.after(() => proxy.stop());
  const open = async () => {
    const socket = net.connect(port, '127.0.0.1');
    t.after(() => socket.destroy());
    socket.on('error', () => {});
    await once(socket, 'connect');
    return socket;
  };
  return { proxy, open, targets, port };
}

async function reply(socket, word) {
  socket.write(word);
  const [bytes] = await once(socket, 'data');
  return bytes.toString();
}

// A reset is an error, which is not the end of the test.
const closed = (socket) => new Promise((resolve) => socket.on('close', resolve));
const silence = (socket, ms) => Promise.race([once(socket, 'data').then(String), new Promise((resolve) => setTimeout(resolve, ms, 'nothing'))]);

test('a dark route passes nothing on, then everything in order, on connections old and new', async (t) => {
  const { proxy, open } = await through(t);
  const old = await open();
  assert.equal(await reply(old, '1'), 'a1');
  await proxy.set('way', { dark: true });
  const young = await open();
  old.write('2');
  young.write('3');
  assert.deepEqual(await Promise.all([silence(old, 150), silence(young, 150)]), ['nothing', 'nothing']);
  const late = [once(old, 'data').then(String), once(young, 'data').then(String)];
  await proxy.set('way');
  assert.deepEqual(await Promise.all(late), ['a2', 'a3']);
  assert.equal(await reply(old, '4'), 'a4');
});

test('a slow route delays both directions and keeps the order', async (t) => {
  const { proxy, open } = await through(t);
  const socket = await open();
  await proxy.set('way', { delayMs: 40 });
  const began = performance.now();
  assert.equal(await reply(socket, '1'), 'a1');
  assert.ok(performance.now() - began >= 79);
  let heard = '';
  socket.on('data', (bytes) => (heard += bytes));
  for (let i = 0; i < 20; i++) socket.write(`${i};`);
  await proxy.set('way');
  socket.write('end');
  while (!heard.includes('end')) await once(socket, 'data');
  assert.equal(heard.replaceAll('a', ''), `${Array.from({ length: 20 }, (_, i) => `${i};`).join('')}end`);
});

test('a route that refuses resets its connections, and one with another target leads there', async (t) => {
  const { proxy, open, targets } = await through(t);
  const socket = await open();
  assert.equal(await reply(socket, '1'), 'a1');
  const reset = closed(socket);
  await proxy.set('way', { refuses: true });
  await reset;
  await assert.rejects(open(), /ECONNREFUSED/);
  await proxy.set('way', { target: targets[1] });
  const moved = await open();
  assert.equal(await reply(moved, '2'), 'b2');
  const cut = closed(moved);
  await proxy.set('way', { target: targets[0] });
  await cut;
  assert.equal(await reply(await open(), '3'), 'a3');
});

test('a route whose port somebody has taken meanwhile opens once that is free again', async (t) => {
  const { proxy, open, port } = await through(t);
  await proxy.set('way', { refuses: true });
  const taker = net.createServer().listen(port, '127.0.0.1');
  await once(taker, 'listening');
  const opened = proxy.set('way');
  assert.equal(await Promise.race([opened.then(() => 'open'), new Promise((resolve) => setTimeout(resolve, 150, 'waiting'))]), 'waiting');
  taker.close();
  await opened;
  assert.equal(await reply(await open(), '1'), 'a1');
});
