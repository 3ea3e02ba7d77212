// Many streams at the same time through each bridge: every one complete, in order and without duplicates. The figures
// are printed only; the benchmarks judge performance. RUNNEL_SCALE=small is for builds with sanitizers.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import test from 'node:test';
import { startRunnel } from './processes.mjs';

const small = process.env.RUNNEL_SCALE === 'small';
const STREAMS = small ? 100 : 1000;
const TOKENS = small ? 30 : 100;
const IDLE = small ? 500 : 10_000;

async function load(t, runnel, transport, flags) {
  const bridge = transport === 'sse' ? runnel.sse : runnel.ws;
  const address = new URL(transport === 'sse' ? runnel.url : runnel.wsUrl).host;
  const pids = [bridge, runnel.inference].map(({ child }) => child.pid);
  const args = [`--transport=${transport}`, `--address=${address}`, `--pids=${pids}`, ...flags];
  const { error, stdout } = await new Promise((resolve) => {
    execFile(join(process.env.RUNNEL_BIN, 'runnel-load'), args, (error, stdout, stderr) =>
      resolve({ error, stdout: stdout + stderr }));
  });
  for (const line of stdout.trim().split('\n')) t.diagnostic(line);
  assert.equal(error, null, stdout);
}

for (const transport of ['sse', 'ws']) {
  test(`${transport}: ${STREAMS} streams at 30 tokens/s, all verified`, async (t) => {
    const runnel = await startRunnel();
    t.after(() => runnel.stop());
    await load(t, runnel, transport, [`--streams=${STREAMS}`, `--tokens=${TOKENS}`, '--pace=30', '--timeout=120s']);
  });

  test(`${transport}: ${IDLE} open silent streams`, async (t) => {
    const runnel = await startRunnel();
    t.after(() => runnel.stop());
    await load(t, runnel, transport, [`--streams=${IDLE}`, '--idle', '--timeout=120s']);
  });
}
