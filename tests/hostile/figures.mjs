// The figures of the hostile suite, for a release build on an otherwise idle machine: how long probes take and how much
// the processes grow under the attacks on time and memory. Prints rows of a Markdown table.
//
//   RUNNEL_BIN=build/release/bin node tests/hostile/figures.mjs [--seconds=10]
import { parseArgs } from 'node:util';
import { probesUnderSlowClients, takesNoMemory } from './admin_attacks.mjs';
import { startArena } from './arena.mjs';
import { unfinishedBodies, unfinishedMessages } from './bridge_attacks.mjs';
import { rapidReset } from './grpc_attacks.mjs';
import { pause } from './raw.mjs';

const { values } = parseArgs({ options: { seconds: { type: 'string', default: '10' } } });
const ms = 1000 * Number(values.seconds);

const arena = await startArena();
const programOf = (process) => process.path.split('/').at(-1);
const mib = (kib) => `${(kib / 1024).toFixed(1)} MiB`;

/** `run` resolves with rows of {program, kib}. Faults that the attack causes in other streams are printed below its row. */
async function row(name, run) {
  arena.resetProbes();
  const figures = await run();
  // Until every probe has been sent at least once.
  await pause(300);
  const harm = await arena.settle().then(() => '', (error) => `\n${error.message}`);
  const cellOf = ({ program, attack, kib }) => `${program}${attack ? ` (${attack})` : ''} ${mib(kib)}`;
  console.log(`| ${name} | ${arena.slowestProbe().toFixed(0)} ms | ${figures.map(cellOf).join(', ')} |${harm}`);
}

await arena.settle();
console.log('| attack | slowest probe of all processes | more memory |\n|---|---|---|');
await row('no attack', async () => {
  await pause(ms);
  return [];
});
await row('200 connections of a byte a second and ten scrapers, on each admin port',
  () => probesUnderSlowClients(arena, { ms }));
await row('requests without an end on the admin ports, 200 MiB each: the largest', async () => {
  const figures = await takesNoMemory(arena, { bytes: 200 << 20 });
  return arena.processes.map(programOf).map((program) => figures.filter((each) => each.program === program)
    .reduce((worst, each) => (each.kib > worst.kib ? each : worst)));
});
await row('100 bodies of 1 MiB without a key',
  async () => [{ program: programOf(arena.sse), kib: (await unfinishedBodies(arena, { key: '' })).kib }]);
await row('100 bodies of 1 MiB without their end',
  async () => [{ program: programOf(arena.sse), kib: (await unfinishedBodies(arena, {})).kib }]);
await row('100 messages of 1 MiB without their end',
  async () => [{ program: programOf(arena.ws), kib: (await unfinishedMessages(arena)).kib }]);
await row('streams opened and immediately reset', async () => {
  const { streams, kib, cpu } = await rapidReset(arena, { ms });
  return [{ program: programOf(arena.inference), attack: `${streams} streams, ${cpu.toFixed(1)} s of CPU`, kib }];
});
await arena.stop();
