// Memory over time: a constant number of streams starts and ends, and the resident memory of every process must stay
// flat.
//
//   node tests/chaos/soak.mjs [--seconds=600] [--streams=500] [--seed=N]
//
// Prints the memory of each process at the start (after a tenth of the time), in the middle and at the end. Exits with
// 0 if every stream was complete.
import { parseArgs } from 'node:util';
import { CheckedLog, Tally } from './checked_log.mjs';
import { residentKb } from '../e2e/processes.mjs';
import { startFleet } from './fleet.mjs';
import { Random } from './random.mjs';
import { Network, readToEnd } from './reading.mjs';
import { Script } from './script.mjs';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '600' },
    streams: { type: 'string', default: '500' },
    seed: { type: 'string', default: '1' },
    help: { type: 'boolean', default: false },
  },
});
if (values.help) {
  const { readFileSync } = await import('node:fs');
  console.log(readFileSync(new URL(import.meta.url), 'utf8').split('\nimport')[0].replace(/^\/\/ ?/gm, ''));
  process.exit(0);
}

// Finished logs are kept for --retention, and the ids of purged ones up to --max_tombstones. Both are smaller here than
// what the soak makes; otherwise memory would grow until these limits are reached.
const fleet = await startFleet({
  flags: { inference: ['--retention=5s', '--max_tombstones=1000'], sse: ['--heartbeat_interval=1s'], ws: ['--ping_interval=1s'] },
});
const tally = new Tally();
const network = new Network(fleet, 10_000);
const began = Date.now();
const lengthMs = Number(values.seconds) * 1000;
const elapsed = () => (Date.now() - began) / lengthMs;
let next = 0;

async function worker() {
  while (elapsed() < 1 && tally.faults === 0) {
    const index = next++;
    const random = new Random(values.seed, `stream ${index}`);
    const script = new Script({ seed: index + 1, tokens: random.whole(30, 200), pace: 20, key: `soak-${index}` });
    await readToEnd(network, new CheckedLog(script, tally), random, { deadlineMs: 60_000, onResume: () => {} });
    tally.streams++;
  }
}

async function measure() {
  const processes = [fleet.inference, ...fleet.all];
  const names = ['inference', ...fleet.all.map(({ name }) => name)];
  for (const [when, share] of [['start', 0.1], ['middle', 0.5], ['end', 0.98]]) {
    while (elapsed() < share && tally.faults === 0) await new Promise((resolve) => setTimeout(resolve, 200));
    console.log(`${when}: ${names.map((name, i) => `${name} ${residentKb(processes[i].child.pid)} KiB`).join(', ')}`);
  }
}

await Promise.all([measure(), ...Array.from({ length: Number(values.streams) }, worker)]);
await fleet.stop();
const { firstFaults, cuts,...sums } = tally;
console.log(`streams ${JSON.stringify(sums)}${firstFaults.map((fault) => `\n${fault}`).join('')}`);
if (cuts.size > 0) console.log(`cuts ${JSON.stringify([...cuts])}`);
process.exit(tally.faults > 0 ? 1 : 0);
