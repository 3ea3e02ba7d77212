// One idempotency key starts one generation, although replicas drain, stall, disappear and return while each key is
// sent several times through several bridges and both transports.
import assert from 'node:assert/strict';
import test from 'node:test';
import { Keys, named, pause, sendAll } from './keys.mjs';
import { startRunnel } from './processes.mjs';

const REPLICAS = 3;
const BRIDGES = 3;

async function setUp(t) {
  const runnel = await startRunnel({
    engine: ['--engine=scripted', '--drain_timeout=60s', '--scripted_first_token=0s'],
    replicas: REPLICAS, sseBridges: BRIDGES, bridge: ['--link_keepalive=1s', '--recovery_timeout=15s'],
  });
  const services = [runnel.inference, runnel.inference2, runnel.inference3];
  t.after(async () => {
    // Their generations run for minutes.
    await Promise.all(services.map((each) => each.kill('SIGKILL')));
    await runnel.stop();
  });
  const keys = new Keys(runnel);
  /** Number of generations started in all running replicas. */
  const begun = async () => {
    const alive = services.filter(({ child }) => child.exitCode === null && child.signalCode === null);
    const counts = await Promise.all(alive.map((each) => runnel.metric(each, 'runnel_queue_duration_seconds_count')));
    return counts.reduce((sum, count) => sum + count, 0);
  };
  return { runnel, keys, begun };
}

const summary = (keys) => `${keys.accepted} accepted; rejected and retried: ${JSON.stringify(Object.fromEntries(keys.refusals))}`;

test('keys that are sent through all bridges at the same time', async (t) => {
  const { keys, begun } = await setUp(t);
  const names = named('crowd', 40);
  await Promise.all([0, 1, 2, 3].map((way) => sendAll(keys, names, way)));
  assert.equal(keys.ids().length, names.length);
  assert.equal(await begun(), names.length);
  t.diagnostic(summary(keys));
});

test('keys while a replica drains', async (t) => {
  const { runnel, keys, begun } = await setUp(t);
  const old = named('before', 40);
  await sendAll(keys, old, 0);
  const goingOn = runnel.inference2.kill('SIGTERM');
  const during = named('during', 20);
  await Promise.all([sendAll(keys, old, 1), sendAll(keys, during, 2)]);
  await Promise.all([sendAll(keys, old, 2), sendAll(keys, during, 3)]);
  assert.equal(keys.ids().length, 60);
  assert.equal(await begun(), 60);
  t.diagnostic(summary(keys));
  goingOn.catch(() => {});
});

test('keys while a replica is stopped for 6 s and then continues', async (t) => {
  const { runnel, keys, begun } = await setUp(t);
  const old = named('before', 40);
  await sendAll(keys, old, 0);
  runnel.inference2.child.kill('SIGSTOP');
  const stopped = Date.now();
  const during = named('during', 20);
  const sent = Promise.all([sendAll(keys, old, 1), sendAll(keys, during, 2)]);
  await pause(6000 - (Date.now() - stopped));
  runnel.inference2.child.kill('SIGCONT');
  await sent;
  await Promise.all([sendAll(keys, old, 2), sendAll(keys, during, 3)]);
  assert.equal(keys.ids().length, 60);
  assert.equal(await begun(), 60);
  t.diagnostic(summary(keys));
});

test('keys while a replica is killed, stays away and returns empty', async (t) => {
  const { runnel, keys, begun } = await setUp(t);
  const old = named('before', 40);
  await sendAll(keys, old, 0);
  const before = await begun();
  assert.equal(before, 40);
  const lost = await runnel.metric(runnel.inference2, 'runnel_queue_duration_seconds_count');
  await runnel.inference2.kill('SIGKILL');
  const during = named('during', 20);
  // Until it counts as lost nothing is started. Then the generations that it kept may start again, but only once.
  await Promise.all([sendAll(keys, during, 2), sendAll(keys, during, 3)]);
  await runnel.inference2.start();
  await sendAll(keys, during, 1);
  const ids = new Map(old.map((key) => [key, keys.idOf(key)[0]]));
  for (const key of old) keys.forget(key);
  for (const way of [1, 2, 3]) await sendAll(keys, old, way);
  keys.ids();
  const renewed = old.filter((key) => keys.idOf(key)[0] !== ids.get(key));
  assert.equal(renewed.length, lost, 'only lost generations start again');
  // The killed run does not count any more. The others have their earlier generations, those started meanwhile, and
  // those that started again.
  assert.equal(await begun(), 40 - lost + 20 + renewed.length);
  t.diagnostic(summary(keys));
});
