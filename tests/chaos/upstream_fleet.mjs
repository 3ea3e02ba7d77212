// The real processes with a faulty network between the service and the inference servers: two mock servers, two replicas
// of the service with the upstream engine, one SSE bridge, and a fault proxy with a route from each replica to each
// server.
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Process, freePorts, metricOf, stopAll } from '../e2e/processes.mjs';
import { FaultProxy } from './fleet.mjs';
import { bodyText, request } from './readers/http.mjs';

const HOST = '127.0.0.1';
const REPLICAS = 2;
const SERVERS = 2;
const IO_THREADS = 2;
const BOUND_MS = 30_000;

/** Polls until a condition holds; the time limit only bounds a failure. */
export async function until(what, condition) {
  const deadline = Date.now() + BOUND_MS;
  let seen;
  while ((seen = await condition()) !== true) {
    if (Date.now() > deadline) throw new Error(`${what}: ${JSON.stringify(seen)} after ${BOUND_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** A process of the mock server. */
class Server {
  constructor(bin, port) {
    Object.assign(this, { path: join(bin, 'bench-upstream-mock'), port, address: `${HOST}:${port}` });
  }

  async start() {
    this.child = spawn(this.path, [String(this.port)], { stdio: 'inherit' });
    await until(`server ${this.address}`, () => this.stats().then(() => true, ({ message }) => message));
  }

  async kill() {
    const gone = new Promise((resolve) => this.child.once('exit', resolve));
    this.child.kill('SIGKILL');
    await gone;
  }

  async stats() {
    return JSON.parse(await bodyText(await request(`http://${this.address}/stats`, { idleMs: 1000 })));
  }

  /** Connections that are open, without the one that asks. */
  async open() {
    return (await this.stats()).open_connections - 1;
  }
}

export const descriptors = ({ child }) => readdirSync(`/proc/${child.pid}/fd`).length;

/** `timeoutMs`: of the service, for the first byte and for each token; `idleMs`: of its unused connections. */
export async function startUpstreamFleet(bin, { timeoutMs, idleMs }) {
  const logs = mkdtempSync(join(tmpdir(), 'runnel-upstream-'));
  const ports = await freePorts(SERVERS + REPLICAS * SERVERS + 2 * REPLICAS + 2);
  const address = () => `${HOST}:${ports.pop()}`;
  const servers = Array.from({ length: SERVERS }, () => new Server(bin, ports.pop()));
  const routes = Array.from({ length: REPLICAS }, () => servers.map((server) => [address(), server.address]));
  const make = (name, file, args) => {
    const admin = address();
    return new Process(join(bin, name), [`--admin_listen=${admin}`, ...args], admin, join(logs, `${file}.log`));
  };
  const listen = routes.map(address);
  const timeouts = ['connect', 'first_byte', 'first_token', 'next_token'].map((of) => `--upstream_${of}_timeout=${timeoutMs}ms`);
  const services = routes.map((route, i) => make('runnel-inference', `service-${i}`, [
    `--listen=${listen[i]}`, '--engine=upstream', '--upstream_model=mock', `--upstream_url=${route.map(([at]) => `http://${at}`)}`,
    ...timeouts, `--upstream_idle_timeout=${idleMs}ms`, // The next attempt must meet a fault, not the breaker.
    '--upstream_max_failures=1000',
    '--drain_notice=0s', '--drain_timeout=3s',
  ]));
  const sse = address();
  const bridge = make('runnel-sse', 'bridge', [`--listen=${sse}`, `--inference=${listen}`, `--io_threads=${IO_THREADS}`, '--recovery_timeout=1s', '--drain_timeout=1s']);
  let proxy;
  process.on('exit', () => {
    for (const each of [...servers, ...services, bridge, proxy]) each?.child?.kill('SIGKILL');
  });
  const fleet = {
    servers, services, bridge, logs, url: `http://${sse}`,
    get proxy() {
      return proxy;
    },
    /** Replaces the proxy by one with other flags, which cuts all connections. Resolves with the counts of the old one. */
    async setFaults(flags) {
      const counts = await proxy?.stop();
      proxy = new FaultProxy(routes.flat(), flags);
      await proxy.start();
      return counts;
    },
    /** Until every thread of the bridge reaches every replica. */
    async untilLinked() {
      await until('all Links', async () => (await metricOf(bridge, 'runnel_links_connected')) === IO_THREADS * REPLICAS);
    },
    /** A metric, summed over all replicas. */
    async sum(metric) {
      const values = await Promise.all(services.map((service) => metricOf(service, metric)));
      return values.reduce((sum, value) => sum + value, 0);
    },
    async serverConnections() {
      const open = await Promise.all(servers.map((server) => server.open()));
      return open.reduce((sum, value) => sum + value, 0);
    },
    async stop() {
      await stopAll([bridge, ...services]);
      const counts = await proxy.stop();
      for (const server of servers) await server.kill();
      return counts;
    },
  };
  for (const server of servers) await server.start();
  await fleet.setFaults(['--share=0']);
  await Promise.all(services.map((service) => service.start()));
  await bridge.start();
  await fleet.untilLinked();
  return fleet;
}
