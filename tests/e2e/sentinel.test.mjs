// Sentinels that tests start fail a store over, and say who the master is.
import assert from 'node:assert/strict';
import test from 'node:test';
import { Sentinel } from './sentinel.mjs';
import { Store, storeProgram } from './store.mjs';

const DEADLINE_MS = 30_000;

async function until(condition) {
  const deadline = Date.now() + DEADLINE_MS;
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, `${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

for (const kind of ['redis', 'valkey']) {
  const skip = storeProgram(kind) === undefined && `${kind} is not installed`;

  test(`${kind}: three Sentinels make the follower of a dead master the master`, { skip }, async (t) => {
    const store = await Store.start({ kind });
    const follower = await Store.start({ kind });
    await follower.command('REPLICAOF', '127.0.0.1', store.port);
    const sentinels = await Promise.all([1, 2, 3].map(() => Sentinel.start({ store })));
    t.after(() => Promise.all([store, follower, ...sentinels].map((each) => each.kill())));
    await until(async () => (await Promise.all(sentinels.map((each) => each.ready()))).every(Boolean));
    await store.command('SET', 'k', 'v');
    await until(async () => (await follower.command('GET', 'k')) === 'v');
    assert.equal(await sentinels[0].masterPort(), store.port);
    await store.kill();
    await until(async () => (await Promise.all(sentinels.map((each) => each.masterPort()))).every((port) => port === follower.port));
    assert.equal((await follower.info('replication')).role, 'master');
    assert.equal(await follower.command('GET', 'k'), 'v');
  });
}
