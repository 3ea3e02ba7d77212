// Generations that survive their replica: three replicas with a shared log, bridges of both kinds and the store, all of
// them real processes that are killed, stopped, drained, filled, flushed, failed over and cut from one another, and
// readers that require every event once and in order.
//
//   node tests/chaos/replicas.mjs [--seed=N] [--streams=N] [--live=N] [--faulted=N] [--replicas=N]
//     [--reader=strict|library|chat|all] [--store=redis|valkey] [--faults=replicas|store|all]
//     [--script=both|salted|plain] [--engine=scripted|upstream|llama] [--store_restart] [--sentinel]
//     [--log_wait=DURATION] [--kill_every=MS] [--store_every=MS] [--deadline=MS]
//
//   --seed           seed of all random choices; printed after a failure (default: the time)
//   --streams        number of streams (300)      --live  number of streams at the same time (60)
//   --faulted        continue until this many streams have been taken over or cut and verified complete
//   --replicas       number of replicas (3), of which one is always left alone
//   --reader         strict: the readers in this folder; library: runnel.js; chat: the chat route; all: by turns
//   --store          redis: redis-server; valkey: valkey-server
//   --faults         replicas: SIGKILL, SIGSTOP and SIGTERM of replicas, also of two at once; store: the store is killed,
//                    stopped, filled, flushed, failed over, slow and cut from replicas; all: both, and bridges and
//                    replicas are cut from one another
//   --script         salted: each run of a replica makes other words, so that equal words cannot hide a hole; plain: every
//                    word is known in advance; both: by turns
//   --engine         upstream: an inference server whose responses are asked for again (--upstream_continue=replay); llama:
//                    a small model, compared with what an undisturbed process makes of the same request and seed
//   --store_restart  kills the store once, whatever --faults says
//   --sentinel       replicas ask three Sentinels for the store, which fail it over to its follower when it is killed,
//                    stopped, or when they are told to; nothing slows or cuts its connections then
//   --log_wait       flag of the replicas
//
// A reader may get a gap, or lose its generation, only if the store was away or a replica had announced that it runs
// unprotected, and the owner was gone as well: see double_faults.mjs. Anything else is a failure. Uses the binaries in
// RUNNEL_BIN, or in build/release/bin. Exits with 0 if nothing was lost, duplicated, reordered or different without a
// notice.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { CheckedLog, Tally } from './checked_log.mjs';
import { FaultLog, Judge } from './double_faults.mjs';
import { Random } from './random.mjs';
import { randomScript } from './random_script.mjs';
import { LlamaReference, LlamaScript, llamaFlags } from './llama_script.mjs';
import { Network } from './reading.mjs';
import { ReplayScript } from './replay_script.mjs';
import { NetworkFaults, ReplicaFaults, StoreFaults } from './replica_faults.mjs';
import { BIN, startReplicaFleet } from './replica_fleet.mjs';
import { ReplicaLogs } from './replica_logs.mjs';
import { ReplicaMetrics } from './replica_metrics.mjs';
import { readAgain, readStream, readerOf } from './replica_reading.mjs';
import { SaltedScript } from './salted_script.mjs';
import { Script } from './script.mjs';

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: String(Date.now() % 1e9) },
    streams: { type: 'string', default: '300' },
    live: { type: 'string', default: '60' },
    replicas: { type: 'string', default: '3' },
    faulted: { type: 'string', default: '0' },
    reader: { type: 'string', default: 'all' },
    store: { type: 'string', default: 'redis' },
    faults: { type: 'string', default: 'replicas' },
    script: { type: 'string', default: 'both' },
    engine: { type: 'string', default: 'scripted' },
    store_restart: { type: 'boolean', default: false },
    sentinel: { type: 'boolean', default: false },
    log_wait: { type: 'string', default: '100ms' },
    kill_every: { type: 'string', default: '2000' },
    store_every: { type: 'string', default: '6000' },
    deadline: { type: 'string', default: '120000' },
    help: { type: 'boolean', default: false },
  },
});
if (values.help) {
  console.log(readFileSync(new URL(import.meta.url), 'utf8').split('\nimport')[0].replace(/^\/\/ ?/gm, ''));
  process.exit(0);
}
const ONE_OF = { reader: ['strict', 'library', 'chat', 'all'], store: ['redis', 'valkey'], faults: ['replicas', 'store', 'all'], script: ['both', 'salted', 'plain'], engine: ['scripted', 'upstream', 'llama'] };
for (const [name, allowed] of Object.entries(ONE_OF)) {
  if (!allowed.includes(values[name])) {
    console.error(`--${name}=${values[name]}: expected one of ${allowed.join(', ')}`);
    process.exit(2);
  }
}

const number = (name) => Number(values[name]);
const seed = number('seed');
const IDLE_MS = 5000;
const MAX_KEPT = 300;
const { engine } = values;
// Requests that have a reference; all streams repeat them.
const LLAMA_REQUESTS = 60;
const others = process.argv.slice(2).filter((arg) => !arg.startsWith('--seed'));
const repeat = ['node tests/chaos/replicas.mjs', ...others, `--seed=${seed}`].join(' ');

/** An engine of the replicas that can continue what another replica has begun. */
async function engineFlags() {
  if (engine === 'scripted') return ['--engine=scripted'];
  if (engine === 'llama') return llamaFlags(BIN);
  const server = fork(fileURLToPath(new URL('replay_server.mjs', import.meta.url)));
  process.on('exit', () => server.kill('SIGKILL'));
  const [port] = await once(server, 'message');
  return ['--engine=upstream', '--upstream_model=mock', `--upstream_url=http://127.0.0.1:${port}`, '--upstream_continue=replay'];
}

async function start(flags) {
  return startReplicaFleet({
    replicas: number('replicas'), kind: values.store, engine: flags, sentinel: values.sentinel,
    standby: values.faults !== 'replicas', proxied: values.faults !== 'replicas',
    // Each run of a replica has a salt of its own.
    flagsOf: (index, run) => (engine === 'scripted' ? [`--scripted_salt=r${index}-${run}`] : []),
    flags: {
      inference: [`--log_wait=${values.log_wait}`, '--retention=30m'],
      sse: ['--heartbeat_interval=1s', '--link_keepalive=2s'], ws: ['--ping_interval=1s', '--link_keepalive=2s'],
    },
  });
}

/** A script for a reader; that of a chat is one text which no reader cancels. */
async function scriptOf(random, index, { reader, reference }) {
  const key = `replicas-${seed}-${index}`;
  if (engine === 'llama') {
    const request = index % LLAMA_REQUESTS;
    const script = await new LlamaScript(new Random(seed, `request ${request}`), { request, key }).prepare(reference);
    return Object.assign(script, { cancelAt: random.chance(0.05) ? random.whole(1, script.lastSeq) : undefined });
  }
  const plain = reader === 'chat' ? { segments: undefined, maxTokens: undefined, choices: 1, failAt: -1, cancelAt: undefined } : {};
  const salted = values.script === 'salted' || (values.script === 'both' && random.chance(0.5));
  const kind = engine === 'upstream' ? { Kind: ReplayScript } : salted ? { Kind: SaltedScript } : { Kind: Script, salt: '' };
  return randomScript(random, { key, ...kind, ...plain });
}

/** Reads streams, `--live` at a time, until there have been enough or one has failed. Returns logs that have ended. */
async function readAll(network, { tally, judge, readers, reference }) {
  let next = 0;
  const ended = [];
  const wanted = () => (number('faulted') > 0 ? tally.faulted < number('faulted') : next < number('streams'));
  await Promise.all(Array.from({ length: number('live') }, async () => {
    while (wanted() && tally.faults === 0) {
      const index = next++;
      const random = new Random(seed, `stream ${index}`);
      const reader = values.reader === 'all' ? readerOf(index, engine) : values.reader;
      const log = new CheckedLog(await scriptOf(random, index, { reader, reference }), tally, judge);
      const options = { reader, deadlineMs: number('deadline') };
      const survived = await readStream(network, log, random, options);
      const complete = reader !== 'chat' && tally.faults === 0 && log.terminal.type !== 'lost';
      if (complete && random.chance(0.3)) await readAgain(network, log, random, options.deadlineMs);
      tally.streams++;
      readers[reader] = (readers[reader] ?? 0) + 1;
      if (survived && tally.faults === 0) tally.faulted++;
      if (complete) ended[index % MAX_KEPT] = log;
    }
  }));
  return ended.filter((log) => log !== undefined);
}

/** Replaces all replicas, one after the other, by kill or drain; then every log that has ended is still there. */
async function readAfterRoll(network, { fleet, faults, logs, random }) {
  for (const replica of fleet.replicas) {
    faults.note('roll', { gone: true, replica: replica.index });
    await replica.kill(random.pick(['SIGKILL', 'SIGTERM']));
    await replica.start();
  }
  const left = logs.values();
  await Promise.all(Array.from({ length: 20 }, async () => {
    for (const log of left) await readAgain(network, log, random, number('deadline'));
  }));
  return logs.length;
}

function times(list) {
  const sorted = list.sort((a, b) => a - b);
  const quantile = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]?.toFixed(0);
  return `${sorted.length} times, p50 ${quantile(0.5)} ms, p99 ${quantile(0.99)} ms`;
}

const listed = (map) => [...map].map(([what, count]) => `${what} ${count}`).join(', ') || 'none';

function report({ tally, judge, faults, metrics, readers, badExits, kept, seconds }) {
  const { firstFaults, cuts, ...sums } = tally;
  console.log(`seed ${seed}, ${values.store}, ${engine === 'scripted' ? values.script : engine}, ${seconds.toFixed(1)} s`);
  console.log(`streams ${JSON.stringify(sums)}, readers ${JSON.stringify(readers)}, ${kept} read again after all replicas were replaced`);
  console.log(`faults: ${listed(faults.counts)}; bad exits: ${badExits}`);
  console.log(`cuts: ${listed([...cuts].sort(([, a], [, b]) => b - a))}`);
  console.log(`readers moved to another epoch: ${judge.takeovers}; explained: ${listed(tally.explained)}`);
  for (const [kind, list] of judge.resumes) console.log(`from ${kind} to the next event: ${times(list)}`);
  console.log(`replicas: ${listed(metrics.sums)}`);
  for (const fault of firstFaults) console.log(fault);
}

/** Runs the faults of --faults until `stopped()`; resolves with the number of processes that ended wrongly. */
async function runFaults({ fleet, faults, metrics, stopped, restartStore }) {
  const random = (name) => new Random(seed, name);
  const replicas = new ReplicaFaults({ fleet, faults, metrics, random: random('replicas') });
  const store = new StoreFaults({ fleet, faults, random: random('store') });
  const running = [metrics.watch(stopped)];
  if (values.faults !== 'store') running.push(replicas.run({ everyMs: number('kill_every'), stopped }));
  if (values.faults !== 'replicas') running.push(store.run({ everyMs: number('store_every'), stopped }));
  if (values.faults === 'all') running.push(new NetworkFaults({ fleet, faults, random: random('network') }).run({ everyMs: 4000, stopped }));
  if (values.store_restart) running.push(restartStore.then(() => (values.sentinel ? store.failOverBySentinel('SIGKILL') : store.restart())));
  await Promise.all(running);
  return replicas.badExits;
}

async function main() {
  const flags = await engineFlags();
  const fleet = await start(flags);
  const reference = engine === 'llama' ? await LlamaReference.start(fleet.bin, flags, fleet.logs) : undefined;
  const tally = new Tally();
  const faults = new FaultLog();
  const logs = new ReplicaLogs(fleet.replicas, faults);
  const judge = new Judge(faults, logs);
  const metrics = new ReplicaMetrics(fleet.replicas);
  const network = new Network(fleet, IDLE_MS);
  const readers = {};
  const began = Date.now();
  let running = true;
  let restart;
  const restartStore = new Promise((resolve) => (restart = resolve));
  const progress = setInterval(() => {
    console.error(`${tally.streams} streams, ${tally.faulted} of them hit by a fault and complete; ${listed(tally.explained)}`);
  }, 30_000);
  // Well before the last stream ends.
  const watch = setInterval(() => tally.streams >= number('streams') / 4 && restart(), 50);
  const failing = runFaults({ fleet, faults, metrics, restartStore, stopped: () => !running });
  // It is awaited below; until then a failure must not end the process.
  failing.catch(() => {});
  let ended;
  try {
    ended = await readAll(network, { tally, judge, readers, reference });
  } finally {
    running = false;
    restart();
    clearInterval(progress);
    clearInterval(watch);
  }
  const badExits = await failing;
  const kept = tally.faults === 0 ? await readAfterRoll(network, { fleet, faults, logs: ended, random: new Random(seed, 'roll') }) : 0;
  logs.read();
  report({ tally, judge, faults, metrics, readers, badExits, kept, seconds: (Date.now() - began) / 1000 });
  const bad = tally.faults + badExits;
  if (bad > 0) console.log(`logs of the processes: ${fleet.logs}\nrepeat with: ${repeat}`);
  await Promise.all([fleet.stop(), reference?.stop()]);
  process.exit(bad > 0 ? 1 : 0);
}

try {
  await main();
} catch (error) {
  console.log(`${error.stack}\nrepeat with: ${repeat}`);
  process.exit(1);
}
