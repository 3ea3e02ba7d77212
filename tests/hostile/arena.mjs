// The real processes with streams of well-behaved readers and probes of every process, under attack. An attack must not
// end a process, cut or delay one of the streams, or delay the response to a probe.
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

/** The header line with the attacker's key. */
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

  /** Starts another process, without probes and bystanders. It is stopped with the others. */
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

  /** The longest time of a probe so far, in ms. */
  slowestProbe() {
    return Math.max(...this.#slowest.values());
  }

  resetProbes() {
    this.#slowest.clear();
  }

  /** Throws the faults that the last attack has caused. Restarts a process that it ended, for the next attack. */
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
    if (verified === 0) faults.push('no stream was read to its end, so the test shows nothing');
    faults.push(...this.bystanders.takeFaults(), ...this.#badProbes);
    for (const each of this.#extra) await each.stop().catch((fault) => faults.push(fault.message));
    await this.fleet.stop().catch((fault) => faults.push(fault.message));
    assert.deepEqual(faults, []);
  }
}

/** `flags`: additional flags for {inference, sse, ws}; `counts`: bystanders by transport; `how`: see Bystanders. */
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

/** Declares a suite of attacks: `attacks(attack, arena)` runs each of them with `attack(name, run)`. */
export function suite(name, options, attacks) {
  test(name, { timeout: 280_000 * SLACK }, async (t) => {
    const arena = await startArena(options);
    let ended = false;
    t.after(async () => {
      if (!ended) await arena.stop();
    });
    await arena.settle();
    /** Runs one attack; reports its faults and those of the arena. */
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
