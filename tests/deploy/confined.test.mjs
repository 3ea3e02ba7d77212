// What the kernel reports about the programs while they run confined like in their pods. Needs confined.sh.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { stream } from '../../bridges/web/runnel.js';
import { startRunnel } from '../e2e/processes.mjs';

const CONFINED = process.env.RUNNEL_CONFINED;
assert.ok(CONFINED, 'run this by confined.sh');
const PROGRAMS = ['runnel-inference', 'runnel-sse', 'runnel-ws'];

const pidOf = (program) => readFileSync(join(CONFINED, `${program}.pid`), 'utf8').trim();

/** Fields of /proc/PID/status by name, each a list of words. */
function status(pid) {
  const lines = readFileSync(`/proc/${pid}/status`, 'utf8').trim().split('\n');
  return Object.fromEntries(lines.map((line) => [line.split(':')[0], line.split(':')[1].trim().split(/\s+/)]));
}

/** The options of each mount, by mount point. */
function mounts(pid) {
  const lines = readFileSync(`/proc/${pid}/mountinfo`, 'utf8').trim().split('\n');
  return new Map(lines.map((line) => [line.split(' ')[4], line.split(' ')[5].split(',')]));
}

/** The limit of the program's memory cgroup in bytes, or undefined if it is unlimited. */
function memoryLimit(pid) {
  for (const line of readFileSync(`/proc/${pid}/cgroup`, 'utf8').trim().split('\n')) {
    const [, controllers, path] = line.split(':');
    const file = controllers === 'memory' ? `memory${path}/memory.limit_in_bytes` : `${path}/memory.max`;
    const limits = controllers === 'memory' || (controllers === '' && path !== '/');
    if (limits) return Number(readFileSync(join('/sys/fs/cgroup', file), 'utf8'));
  }
  return undefined;
}

test('each program runs as nobody, without capabilities, writes only to /tmp, and serves requests', async (t) => {
  const runnel = await startRunnel();
  t.after(() => runnel.stop());
  const reading = stream('go', { baseUrl: runnel.url });
  assert.equal((await reading.result).verified, true);
  for (const program of PROGRAMS) {
    const pid = pidOf(program);
    const is = status(pid);
    assert.equal(is.Name[0], program.slice(0, 15), program);
    // Unless root runs the test, the real user is the one who runs it, and only the program sees 65532.
    if (process.getuid() === 0) assert.deepEqual(is.Uid, Array(4).fill('65532'), program);
    const sets = ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'];
    for (const set of sets) assert.match(is[set][0], /^0+$/, `${program} ${set}`);
    assert.deepEqual(is.NoNewPrivs, ['1'], program);
    assert.equal(is.NSpid.at(-1), '1', `${program} is process 1`);
    const places = mounts(pid);
    assert.ok(places.get('/').includes('ro'), `${program}: / is read-only`);
    const writable = [...places].filter(([place, options]) => options.includes('rw') && !/^\/(dev|proc)\b/.test(place));
    assert.deepEqual(writable.map(([place]) => place), ['/tmp'], program);
    if (process.env.RUNNEL_CGROUP) assert.ok(memoryLimit(pid) <= 1536 << 20, `${program}: ${memoryLimit(pid)}`);
  }
});
