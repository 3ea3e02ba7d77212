// Streams that survive: real processes, a faulty network, bridges that are killed, and readers that require every event
// once and in order, with exactly the bytes of the script.
//
//   node tests/chaos/chaos.mjs [--seed=N] [--streams=N] [--live=N] [--faulted=N]
//     [--reader=strict|library|both] [--kill_every=MS] [--share=S] [--no_link_faults] [--deadline=MS]
//
//   --seed     seed of all random choices; printed after a failure (default: the time)
//   --streams  number of streams (400)        --live  number of streams at the same time (200)
//   --faulted  continue until this many streams have been cut at least once and verified complete
//   --reader   strict: the readers in this folder; library: runnel.js; both (default): a quarter with runnel.js
//   --share    share of the connections that get a fault (0.6)
//
// Uses the binaries in RUNNEL_BIN, or in build/release/bin. Exits with 0 if nothing was lost, duplicated, reordered or
// wrongly reported as complete.
import { parseArgs } from 'node:util';
import { CheckedLog, Tally } from './checked_log.mjs';
import { killAtRandom, startFleet } from './fleet.mjs';
import { readWithLibrary } from './library_reading.mjs';
import { Random } from './random.mjs';
import { randomScript } from './random_script.mjs';
import { Network, readToEnd } from './reading.mjs';

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: String(Date.now() % 1e9) },
    streams: { type: 'string', default: '400' },
    live: { type: 'string', default: '200' },
    faulted: { type: 'string', default: '0' },
    reader: { type: 'string', default: 'both' },
    kill_every: { type: 'string', default: '1500' },
    share: { type: 'string', default: '0.6' },
    deadline: { type: 'string', default: '90000' },
    no_link_faults: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});
if (values.help) {
  const { readFileSync } = await import('node:fs');
  console.log(readFileSync(new URL(import.meta.url), 'utf8').split('\nimport')[0].replace(/^\/\/ ?/gm, ''));
  process.exit(0);
}

const number = (name) => Number(values[name]);
const seed = number('seed');
const IDLE_MS = 5000;
const others = process.argv.slice(2).filter((arg) => !arg.startsWith('--seed'));
const repeat = ['node tests/chaos/chaos.mjs', ...others, `--seed=${seed}`].join(' ');

// Half of the silent faults are left out, because each costs its reader the whole idle time.
const CLIENT_FAULTS = [
  'cut', 'cut', 'reset', 'reset', 'truncate', 'half_open', 'stall', 'delay', 'throttle', 'buffer', 'duplicate',
];
const LINK_FAULTS = ['cut', 'cut', 'reset', 'reset', 'truncate', 'delay', 'buffer', 'duplicate'];

function times(list) {
  const sorted = list.sort((a, b) => a - b);
  const quantile = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]?.toFixed(0);
  return `${sorted.length} times, p50 ${quantile(0.5)} ms, p99 ${quantile(0.99)} ms`;
}

/** The processes, with faults on both sides of the bridges. */
function start() {
  const common = [`--seed=${seed}`];
  return startFleet({
    clientFaults: [...common, `--faults=${CLIENT_FAULTS}`, `--share=${values.share}`, '--linger=8s'],
    // There are few of these connections, and each carries all streams of a thread.
    linkFaults: values.no_link_faults ? undefined
      : [...common, `--faults=${LINK_FAULTS}`, '--share=0.9', '--max_down_bytes=100000', '--max_up_bytes=4000',
        '--up_share=0.3', '--linger=3s'],
    flags: { sse: ['--heartbeat_interval=1s', '--write_timeout=2s'], ws: ['--ping_interval=1s', '--write_timeout=2s'] },
  });
}

/** Reads streams, `--live` at a time, until there have been enough or one has failed. */
async function readAll(fleet, tally, onResume) {
  const network = new Network(fleet, IDLE_MS);
  let next = 0;
  const wanted = () => (number('faulted') > 0 ? tally.faulted < number('faulted') : next < number('streams'));
  await Promise.all(Array.from({ length: number('live') }, async () => {
    while (wanted() && tally.faults === 0) {
      const index = next++;
      const random = new Random(seed, `stream ${index}`);
      const log = new CheckedLog(randomScript(random, { key: `chaos-${seed}-${index}` }), tally);
      const library = values.reader === 'library' || (values.reader === 'both' && index % 4 === 3);
      const read = library ? readWithLibrary : readToEnd;
      const cut = await read(network, log, random, { deadlineMs: number('deadline'), onResume });
      tally.streams++;
      if (cut && tally.faults === 0) tally.faulted++;
    }
  }));
}

function report({ tally, kills, counts, seconds, resumes, silences }) {
  const { firstFaults, cuts,...sums } = tally;
  const byCount = [...cuts].sort(([, a], [, b]) => b - a);
  console.log(`seed ${seed}, ${seconds.toFixed(1)} s`);
  console.log(`streams ${JSON.stringify(sums)}`);
  console.log(`cuts ${byCount.map(([how, count]) => `${how} ${count}`).join(', ')}`);
  console.log(`bridges ${JSON.stringify(kills)}`);
  for (const [name, each] of Object.entries(counts)) console.log(`${name} ${JSON.stringify(each)}`);
  console.log(`from a cut to the next event: ${times(resumes)}`);
  console.log(`from the last byte before a silent cut (noticed after ${IDLE_MS} ms): ${times(silences)}`);
  for (const fault of firstFaults) console.log(fault);
}

async function main() {
  const fleet = await start();
  const tally = new Tally();
  const resumes = [];
  const silences = [];
  let running = true;
  const began = Date.now();
  const say = () => console.error(`${tally.streams} streams, ${tally.faulted} of them cut and complete`);
  const progress = setInterval(say, 30_000);
  const options = { everyMs: number('kill_every'), stopped: () => !running };
  const killing = killAtRandom(fleet, new Random(seed, 'kills'), options);
  try {
    await readAll(fleet, tally, (ms, silent) => (silent ? silences : resumes).push(ms));
  } finally {
    running = false;
    clearInterval(progress);
  }
  const kills = await killing;
  const counts = await fleet.stop();
  report({ tally, kills, counts, seconds: (Date.now() - began) / 1000, resumes, silences });
  const bad = tally.faults + kills.badExits;
  if (bad > 0) console.log(`logs of the processes: ${fleet.logs}\nrepeat with: ${repeat}`);
  process.exit(bad > 0 ? 1 : 0);
}

try {
  await main();
} catch (error) {
  console.log(`${error.stack}\nrepeat with: ${repeat}`);
  process.exit(1);
}
