// The real processes with a faulty network between them: one scripted service, bridges of both kinds, and fault proxies
// between readers and bridges and between bridges and service.
import { spawn } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Process, freePorts, metricOf } from '../e2e/processes.mjs';

const HOST = '127.0.0.1';
const BIN = process.env.RUNNEL_BIN ?? fileURLToPath(new URL('../../build/release/bin', import.meta.url));

/** A fault proxy; `routes` are [listen, target] pairs. */
export class FaultProxy {
  constructor(routes, flags) {
    this.args = [`--routes=${routes.map((route) => route.join('=')).join(',')}`, ...flags];
  }

  async start() {
    this.child = spawn(join(BIN, 'runnel-fault-proxy'), this.args, { stdio: ['ignore', 'pipe', 'inherit'] });
    this.lines = createInterface(this.child.stdout)[Symbol.asyncIterator]();
    const { value } = await this.lines.next();
    if (value !== 'ready') throw new Error(`the fault proxy did not get ready: ${value}`);
  }

  /** Resolves with the proxy's counts. */
  async stop() {
    this.child.kill('SIGTERM');
    const { value } = await this.lines.next();
    return JSON.parse(value);
  }
}

/**
 * Starts everything. `bridges`: number of bridges of each kind; `clientFaults` and `linkFaults`: flags of the two
 * proxies, which are left out without them. `flags`: additional flags for {inference, sse, ws}.
 */
export async function startFleet({ bridges = 2, clientFaults, linkFaults, flags = {} } = {}) {
  const logs = mkdtempSync(join(tmpdir(), 'runnel-chaos-'));
  const count = 2 * bridges;
  const addresses = (await freePorts(2 + 4 * count + 1)).map((port) => `${HOST}:${port}`);
  const [grpc, grpcAdmin, grpcProxied] = addresses.splice(0, 3);
  const [listen, admin, proxied, linked] = Array.from({ length: 4 }, () => addresses.splice(0, count));
  const make = (name, file, adminAddress, args) =>
    new Process(join(BIN, name), [...args, `--admin_listen=${adminAddress}`], adminAddress, join(logs, file));
  const inference = make('runnel-inference', 'inference.log', grpcAdmin,
    [`--listen=${grpc}`, '--engine=scripted', '--drain_timeout=3s', ...(flags.inference ?? [])]);
  const all = listen.map((address, i) => {
    const kind = i < bridges ? 'sse' : 'ws';
    const bridge = make(`runnel-${kind}`, `${kind}-${i}.log`, admin[i], [
      `--listen=${address}`, `--inference=${linkFaults ? linked[i] : grpc}`, '--drain_timeout=2s',
      ...(kind === 'sse' ? [] : ['--allowed_origins=*']), ...(flags[kind] ?? [])]);
    const at = clientFaults ? proxied[i] : address;
    return Object.assign(bridge, { kind, name: `${kind}-${i}`, address, at,
      url: kind === 'sse' ? `http://${at}` : `ws://${at}/v1/ws` });
  });
  const proxies = {
    ...(clientFaults && { clients: new FaultProxy(
      [...all.map(({ at, address }) => [at, address]), [grpcProxied, grpc]], clientFaults) }),
    ...(linkFaults && { links: new FaultProxy(linked.map((address) => [address, grpc]), linkFaults) }),
  };
  // Also after an uncaught failure.
  process.on('exit', () => {
    for (const each of [...all, inference, ...Object.values(proxies)]) each.child?.kill('SIGKILL');
  });
  const fleet = {
    bin: BIN, inference, all, logs, proxies, grpc, grpcAt: clientFaults ? grpcProxied : grpc,
    sse: all.filter(({ kind }) => kind === 'sse'),
    ws: all.filter(({ kind }) => kind === 'ws'),
    metric: metricOf,
    /** Resolves with the counts of the proxies; throws if a process was not running or did not end normally. */
    async stop() {
      const faults = [];
      const note = (fault) => faults.push(fault);
      await Promise.all(all.map((bridge) => bridge.stop().catch(note)));
      await inference.stop().catch(note);
      const counts = {};
      for (const [name, proxy] of Object.entries(proxies)) counts[name] = await proxy.stop();
      if (faults.length > 0) throw faults[0];
      return counts;
    },
  };
  try {
    await inference.start();
    for (const proxy of Object.values(proxies)) await proxy.start();
    await Promise.all(all.map((bridge) => bridge.start()));
  } catch (fault) {
    // Running children would keep this process from exiting.
    for (const each of [...all, inference, ...Object.values(proxies)]) each.child?.kill('SIGKILL');
    throw fault;
  }
  return fleet;
}

/**
 * Kills bridges at random moments, by SIGKILL or SIGTERM, and restarts them, until `stopped()`. Returns the counts;
 * `badExits`: bridges that ended by themselves, or not with status 0 after SIGTERM.
 */
export async function killAtRandom(fleet, random, { everyMs, stopped }) {
  const counts = { kill9: 0, sigterm: 0, badExits: 0 };
  while (!stopped()) {
    const until = Date.now() + random.whole(everyMs / 2, everyMs * 1.5);
    while (Date.now() < until && !stopped()) await new Promise((resolve) => setTimeout(resolve, 50));
    if (stopped()) break;
    const victim = random.pick(fleet.all);
    const hard = random.chance(0.5);
    counts[hard ? 'kill9' : 'sigterm']++;
    const ran = victim.child.exitCode === null && victim.child.signalCode === null;
    const [code] = await victim.kill(hard ? 'SIGKILL' : 'SIGTERM');
    if (!ran || (!hard && code !== 0)) counts.badExits++;
    await victim.start();
  }
  return counts;
}

