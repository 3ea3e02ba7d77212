// The real processes, streams of well-behaved readers and probes of every process, and then an attack: it must neither
// end a process, nor cut or delay one of those streams, nor keep a probe from its answer.
import assert from 'node:assert/strict';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { Worker } from 'node:worker_threads';
import { startFleet } from '../chaos/fleet.mjs';
import { Process, cpuSeconds, freePorts, metricOf, residentKb } from '../e2e/processes.mjs';
import { Bystanders } from './bystanders.mjs';
import { SLACK, until, within } from './raw.mjs';

const PROBE_MS = 1000;
const PROBE_EVERY_MS = 100;

export const KEYS = { attacker: 'hostile-attacker-key-0123456789', bystander: 'hostile-bystander-key-0123456789' };

/** The key of the attacker as a line of a request. */
export const AUTHORIZATION = `Authorization: Bearer ${KEYS.attacker}\r\n`;

function keysFile() {
  const file = join(mkdtempSync(join(tmpdir(), 'runnel-hostile-')), 'keys');
  writeFileSync(file, Object.entries(KEYS).map(([name, key]) => `${key} ${name}\n`).join(''), { mode: 0o600 });
  return file;
}

class Arena {
  #probes;
  #slowest = new Map();
  #badProbes = [];
  #extra = [];

  constructor(fleet, bystanders) {
    Object.assign(this, { fleet, bystanders, inference: fleet.inference, sse: fleet.sse[0], ws: fleet.ws[0],
      grpc: fleet.grpc });
    const urls = this.processes.flatMap(({ admin }) => ['livez', 'readyz'].map((path) => `http://${admin}/${path}`));
    this.#probes = new Worker(new URL('./probes.mjs', import.meta.url),
      { workerData: { urls, everyMs: PROBE_EVERY_MS, timeoutMs: 5 * PROBE_MS * SLACK } });
    this.#probes.on('message', ({ url, ms, failed }) => {
      if (failed) return this.#badProbes.push(`${url}: ${failed}`);
      this.#slowest.set(url, Math.max(ms, this.#slowest.get(url) ?? 0));
      if (ms > PROBE_MS * SLACK) this.#badProbes.push(`${url} took ${Math.round(ms)} ms`);
    });
  }

  get processes() {
    return [this.inference, this.sse, this.ws];
  }

  /** A further process, which is neither probed nor read by the bystanders; started, and ended with the others. */
  async extra(program, flags) {
    const [listen, admin] = (await freePorts(2)).map((port) => `127.0.0.1:${port}`);
    const process = new Process(join(this.fleet.bin, program),
      [`--listen=${listen}`, `--admin_listen=${admin}`, '--drain_timeout=2s',
        ...(program === 'runnel-inference' ? [] : [`--inference=${this.grpc}`]), ...flags],
      admin, join(this.fleet.logs, `${program}-${admin.split(':')[1]}.log`));
    process.address = listen;
    await process.start();
    this.#extra.push(process);
    return process;
  }

  metric(process, name) {
    return metricOf(process, name);
  }

  residentKb(process) {
    return residentKb(process.child.pid);
  }

  cpuSeconds(process) {
    return cpuSeconds(process.child.pid);
  }

  /** The longest that a probe took so far, in ms. */
  slowestProbe() {
    return Math.max(...this.#slowest.values());
  }

  resetProbes() {
    this.#slowest.clear();
  }

  /** Throws what the attack before has done to others. A process that it ended is started again for the next one. */
  async settle() {
    const faults = [];
    for (const each of this.processes) {
      if (each.child.exitCode === null && each.child.signalCode === null) continue;
      faults.push(`${each.path} ended with ${each.child.signalCode ?? each.child.exitCode}`);
      each.killed = true;
      await each.start();
    }
    await this.bystanders.progress().catch((error) => faults.push(error.message));
    faults.push(...this.bystanders.takeFaults(), ...this.#badProbes.splice(0));
    assert.deepEqual(faults.slice(0, 10), []);
  }

  async stop() {
    const faults = [];
    const { verified } = await within(30_000, 'the last streams', this.bystanders.finish());
    await this.#probes.terminate();
    if (verified === 0) faults.push('no stream came to its end: nothing was shown');
    faults.push(...this.bystanders.takeFaults(), ...this.#badProbes);
    for (const each of this.#extra) await each.stop().catch((fault) => faults.push(fault.message));
    await this.fleet.stop().catch((fault) => faults.push(fault.message));
    assert.deepEqual(faults, []);
  }
}

/** `flags`: more for {inference, sse, ws}; `counts`: bystanders by transport; `how` they read, see there. */
export async function startArena({ flags = {}, counts = { sse: 3, ws: 3 }, ...how } = {}) {
  const keys = `--api_keys_file=${keysFile()}`;
  const fleet = await startFleet({
    bridges: 1,
    flags: { inference: flags.inference ?? [], sse: [keys, ...(flags.sse ?? [])], ws: [keys, ...(flags.ws ?? [])] },
  });
  const targets = { sse: fleet.sse[0], ws: fleet.ws[0], grpc: { address: fleet.grpc } };
  const headers = { authorization: `Bearer ${KEYS.bystander}` };
  return new Arena(fleet, new Bystanders(counts, targets, headers, how));
}

/** Declares a suite: `attacks(attack, arena)` declares its attacks, `arena()` gives the arena once it runs. */
export function suite(name, options, attacks) {
  test(name, { timeout: 280_000 * SLACK }, async (t) => {
    const arena = await startArena(options);
    let ended = false;
    t.after(async () => {
      if (!ended) await arena.stop();
    });
    await arena.settle();
    /** One attack; its own faults and those of the arena are both reported. */
    const attack = (what, run) => t.test(what, async (each) => {
      const faults = [];
      const note = (fault) => faults.push(fault.message);
      await run(each).catch(note);
      await arena.settle().catch(note);
      if (faults.length > 0) throw new Error(faults.join('\n'));
    });
    await attacks(attack, arena);
    await t.test('no process ended, and no stream was cut', async () => {
      ended = true;
      await arena.stop();
    });
  });
}

export { until, within };
