// Streams of the upstream engine over a faulty network between the service and its inference servers. Each response is
// complete, with exactly the text that the server sends for this request, or has failed with a code that fits the fault.
// Afterwards no connection is left.
//
//   node tests/chaos/upstream.mjs [--seed=N] [--streams=N] [--live=N]
//
//   --seed     seed of all random choices; printed after a failure (default: the time)
//   --streams  number of streams (600)        --live  number of streams at the same time (60)
//
// Every connection to a server has a fault, at a random place within its first responses. Uses the binaries in RUNNEL_BIN, or in build/release/bin.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Random } from './random.mjs';
import { descriptors, startUpstreamFleet, until } from './upstream_fleet.mjs';
import { check, readChat, readNative } from './upstream_reading.mjs';

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: String(Date.now() % 1e9) },
    streams: { type: 'string', default: '600' },
    live: { type: 'string', default: '60' },
    help: { type: 'boolean', default: false },
  },
});
if (values.help) {
  console.log(readFileSync(new URL(import.meta.url), 'utf8').split('\nimport')[0].replace(/^\/\/ ?/gm, ''));
  process.exit(0);
}
const BIN = process.env.RUNNEL_BIN ?? fileURLToPath(new URL('../../build/release/bin', import.meta.url));
const seed = Number(values.seed);
const TIMEOUT_MS = 2000;
const IDLE_MS = 3000;

const CUTS = ['cut', 'reset', 'close_idle'];
const SILENCES = ['stall', 'half_open', 'truncate'];
const SLOW = ['delay', 'buffer', 'drip', 'duplicate'];
const BYTES = ['garbage', 'repeat'];
const ALL = [...CUTS, ...SILENCES, ...SLOW, ...BYTES];
/**
 * One after another. `share`: of the streams; `codes`: failures that the faults explain; `kills`: servers and replicas
 * are killed and restarted.
 */
const PHASES = [
  { name: 'cuts', share: 0.35, faults: CUTS, codes: ['engine_unavailable'] },
  { name: 'silence', share: 0.1, faults: SILENCES, codes: ['engine_timeout', 'engine_unavailable'] },
  { name: 'slow', share: 0.1, faults: SLOW, codes: [] },
  { name: 'changed bytes', share: 0.2, faults: BYTES, codes: ['engine_failed', 'engine_unavailable'] },
  { name: 'everything', share: 0.2, faults: ALL, kills: true,
    codes: ['engine_unavailable', 'engine_timeout', 'engine_failed', 'generation_lost', 'draining'] },
  { name: 'no faults', share: 0.05, faults: [], codes: [] },
];
const RETRYABLE = { engine_unavailable: true, engine_timeout: true, engine_failed: false, generation_lost: true, draining: true };

const faults = [];
const phaseTallies = [];

function planOf(random, index) {
  return { seed: index + 1, tokens: random.whole(1, 40), pace: random.pick([200, 500, 2000]), parts: random.chance(0.5) };
}

async function readOne(fleet, phase, index) {
  const random = new Random(seed, `stream ${index}`);
  const plan = planOf(random, index);
  const cancelAt = random.chance(0.05) ? random.whole(1, plan.tokens) : undefined;
  const asChat = plan.parts || random.chance(0.5);
  const openai = cancelAt === undefined && random.chance(0.25);
  const result = check(plan, await (openai ? readChat(fleet.url, plan) : readNative(fleet.url, plan, { asChat, cancelAt })));
  const what = `${phase.name}, stream ${index} of ${plan.tokens} tokens`;
  const expected = { complete: true, cancelled: cancelAt !== undefined, failed: phase.codes.includes(result.code) };
  if (!expected[result.end]) faults.push(`${what}: ${result.fault ?? `${result.code}: ${result.message}`}`);
  if (result.end === 'failed' && result.retryable !== undefined && RETRYABLE[result.code] === !result.retryable) {
    faults.push(`${what}: ${result.code} with retryable ${result.retryable}`);
  }
  return result.end === 'failed' ? result.code : result.end;
}

/** Kills and restarts a server or a replica of the service, in turn. */
async function killNext(fleet, turn) {
  if (turn % 2 === 0) {
    const server = fleet.servers[(turn / 2) % fleet.servers.length];
    await server.kill();
    await server.start();
    return 'servers killed with -9';
  }
  const service = fleet.services[((turn - 1) / 2) % fleet.services.length];
  const hard = turn % 4 === 1;
  const [code] = await service.kill(hard ? 'SIGKILL' : 'SIGTERM');
  if (!hard && code !== 0) faults.push(`a replica ended with status ${code}`);
  await service.start();
  // Otherwise the bridge could be without any replica next time.
  await fleet.untilLinked();
  return hard ? 'replicas killed with -9' : 'replicas drained';
}

async function runPhase(fleet, phase, first, count) {
  const tally = {};
  const note = (kind) => (tally[kind] = (tally[kind] ?? 0) + 1);
  const before = await fleet.setFaults([
    `--seed=${seed}`, `--faults=${phase.faults}`, '--share=1', '--linger=3s', '--max_delay=100ms', '--max_up_bytes=1500',
  ]);
  if (before !== undefined && phaseTallies.length > 0) phaseTallies.at(-1).struck = before;
  let next = 0;
  let over = 0;
  let turn = 0;
  let killing = Promise.resolve();
  const kills = Math.max(4, Math.round(count / 100));
  const maybeKill = () => {
    // At equal distances.
    if (!phase.kills || turn >= kills || over < ((turn + 1) * count) / (kills + 1)) return;
    const now = turn++;
    killing = killing.then(() => killNext(fleet, now)).then(note);
  };
  await Promise.all(Array.from({ length: Number(values.live) }, async () => {
    while (next < count && faults.length < 10) {
      note(await readOne(fleet, phase, first + next++));
      over++;
      maybeKill();
    }
  }));
  await killing;
  phaseTallies.push({ phase, tally, failovers: await fleet.sum('runnel_upstream_failovers_total') });
  console.log(`${phase.name}: ${JSON.stringify(tally)}`);
}

/** Everything that a stream uses is free again: first all but the idle connections, then these too. */
async function settle(fleet, baseline) {
  await until('as many connections of the servers as idle connections of the service', async () => {
    const [active, idle, open] = [await fleet.sum('runnel_upstream_streams_active'),
      await fleet.sum('runnel_upstream_idle_connections'), await fleet.serverConnections()];
    return (active === 0 && idle > 0 && open === idle) || { active, idle, open };
  });
  assert.equal(await fleet.sum('runnel_upstream_streams'), 0);
  await until('no connection', async () => {
    const [idle, open] = [await fleet.sum('runnel_upstream_idle_connections'), await fleet.serverConnections()];
    return (idle === 0 && open === 0) || { idle, open };
  });
  await until('as many descriptors as at the start', () => {
    const now = [...fleet.services, fleet.proxy].map(descriptors);
    return now.every((count, i) => count === baseline[i]) || { now, baseline };
  });
}

/** Returns how often each fault has struck. */
function checkCounts() {
  const sums = Object.fromEntries(ALL.map((fault) => [fault, 0]));
  for (const { phase, tally, struck } of phaseTallies) {
    for (const fault of ALL) sums[fault] += struck[fault];
    const failures = Object.keys(tally).filter((kind) => kind.startsWith('engine_'));
    if (phase.codes.length > 0) assert.ok(failures.length > 0, `${phase.name}: no stream has failed`);
    assert.ok(tally.complete > 0, `${phase.name}: no stream is complete`);
    if (phase.kills) assert.ok(tally['servers killed with -9'] >= 1 && tally['replicas killed with -9'] >= 1);
  }
  for (const fault of ALL) assert.ok(sums[fault] > 0, `no ${fault}`);
  return sums;
}

async function main() {
  const fleet = await startUpstreamFleet(BIN, { timeoutMs: TIMEOUT_MS, idleMs: IDLE_MS });
  const baseline = [...fleet.services, fleet.proxy].map(descriptors);
  const began = Date.now();
  const total = Number(values.streams);
  let first = 0;
  for (const phase of PHASES) {
    const count = Math.round(total * phase.share);
    await runPhase(fleet, phase, first, count);
    first += count;
    if (faults.length > 0) break;
  }
  for (const fault of faults.slice(0, 20)) console.log(fault);
  if (faults.length > 0) throw new Error(`wrong streams; logs of the processes: ${fleet.logs}`);
  await settle(fleet, baseline);
  phaseTallies.at(-1).struck = await fleet.stop();
  assert.equal(phaseTallies.at(-1).struck.open, 0, 'connections of the proxy');
  const sums = checkCounts();
  const struck = Object.values(sums).reduce((sum, count) => sum + count, 0);
  const results = {};
  for (const { tally } of phaseTallies) {
    for (const [kind, count] of Object.entries(tally)) results[kind] = (results[kind] ?? 0) + count;
  }
  console.log(`${first} streams in ${((Date.now() - began) / 1000).toFixed(1)} s, seed ${seed}: ${JSON.stringify(results)}`);
  console.log(`${struck} faults: ${JSON.stringify(sums)}`);
  console.log(`failovers: ${Math.max(...phaseTallies.map(({ failovers }) => failovers))}`);
}

try {
  await main();
  process.exit(0);
} catch (error) {
  console.log(`${error.stack}\nrepeat with: node tests/chaos/upstream.mjs --streams=${values.streams} --live=${values.live} --seed=${seed}`);
  process.exit(1);
}
