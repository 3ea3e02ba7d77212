// What the kernel says of the programs while they run as their pods do: under confined.sh only.
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

/** Options of each mount by its place. */
function mounts(pid) {
  const lines = readFileSync(`/proc/${pid}/mountinfo`, 'utf8').trim().split('\n');
  return new Map(lines.map((line) => [line.split(' ')[4], line.split(' ')[5].split(',')]));
}

/** The limit of the program's memory cgroup in bytes, or undefined if this is the kernel's unlimited. */
function memoryLimit(pid) {
  for (const line of readFileSync(`/proc/${pid}/cgroup`, 'utf8').trim().split('\n')) {
    const [, controllers, path] = line.split(':');
    const file = controllers === 'memory' ? `memory${path}/memory.limit_in_bytes` : `${path}/memory.max`;
    const limits = controllers === 'memory' || (controllers === '' && path !== '/');
    if (limits) return Number(readFileSync(join('/sys/fs/cgroup', file), 'utf8'));
  }
  return undefined;
}

test('each program is nobody, can do nothing, writes to /tmp only, and answers', async (t) => {
  const runnel = await startRunnel();
  t.after(() => runnel.stop());
  const answer = stream('go', { baseUrl: runnel.url });
  assert.equal((await answer.result).verified, true);
  for (const program of PROGRAMS) {
    const pid = pidOf(program);
    const is = status(pid);
    assert.equal(is.Name[0], program.slice(0, 15), program);
    // Outside of a test by root the user is who runs it, and 65532 only to the program.
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
