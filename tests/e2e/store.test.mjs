// The servers of the shared log are what the other tests take them for, and their faults are faults.
import assert from 'node:assert/strict';
import test from 'node:test';
import { parseReply } from './resp.mjs';
import { Store, storeProgram } from './store.mjs';

test('replies are parsed whole, and incomplete ones not at all', () => {
  const text = '*4\r\n$5\r\nha\r\nl\r\n:-3\r\n$-1\r\n*1\r\n+OK\r\n';
  for (let length = 0; length < text.length; length++) assert.equal(parseReply(Buffer.from(text.slice(0, length))), undefined);
  assert.deepEqual(parseReply(Buffer.from(`${text}+more`)), { value: ['ha\r\nl', -3, null, ['OK']], end: text.length });
  assert.equal(parseReply(Buffer.from('-OOM no room\r\n')).value.message, 'OOM no room');
  assert.equal(parseReply(Buffer.from('*-1\r\n')).value, null);
  assert.throws(() => parseReply(Buffer.from('HTTP/1.1 400\r\n')), /not a reply/);
});

for (const kind of ['redis', 'valkey']) {
  const skip = storeProgram(kind) === undefined && `${kind} is not installed`;

  test(`${kind}: a killed server finds its data again, a frozen one does not respond`, { skip }, async (t) => {
    const store = await Store.start({ kind, args: ['--appendfsync', 'always'] });
    t.after(() => store.kill());
    assert.equal(await store.command('XADD', 's', '1-1', 'e', 'x'), '1-1');
    await store.kill();
    await assert.rejects(store.command('PING'), /ECONNREFUSED/);
    await store.start();
    assert.deepEqual(await store.command('XRANGE', 's', '-', '+'), [['1-1', ['e', 'x']]]);
    store.freeze();
    const slow = store.command('PING');
    const first = await Promise.race([slow, new Promise((resolve) => setTimeout(resolve, 200, 'nothing'))]);
    assert.equal(first, 'nothing');
    store.thaw();
    assert.equal(await slow, 'PONG');
  });

  test(`${kind}: a full server refuses appends and serves reads`, { skip }, async (t) => {
    const store = await Store.start({ kind });
    t.after(() => store.kill());
    await store.command('SET', 'k', 'v');
    await store.command('CONFIG', 'SET', 'maxmemory', '1');
    await assert.rejects(store.command('XADD', 's', '1-1', 'e', 'x'), /^Error: OOM/);
    assert.equal(await store.command('GET', 'k'), 'v');
    await store.command('CONFIG', 'SET', 'maxmemory', '0');
    assert.equal(await store.command('XADD', 's', '1-1', 'e', 'x'), '1-1');
    assert.equal((await store.info('memory')).maxmemory_policy, 'noeviction');
  });
}
