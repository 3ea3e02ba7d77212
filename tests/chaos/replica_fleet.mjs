// Replicas of the service with a shared log, bridges of both kinds, and the store, all of them real processes; between
// them a proxy whose routes a test can change.
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Process, freePorts, stopAll } from '../e2e/processes.mjs';
import { Sentinel } from '../e2e/sentinel.mjs';
import { Store } from '../e2e/store.mjs';
import { SwitchProxy } from './switch_proxy.mjs';

const HOST = '127.0.0.1';
export const BIN = process.env.RUNNEL_BIN ?? fileURLToPath(new URL('../../build/release/bin', import.meta.url));
const DRAIN = '--drain_timeout=5s';
const SENTINELS = 3;

const count = (length, make) => Array.from({ length }, (_, index) => make(index));

/** The ports of a fleet, and the routes of its proxy: {name: [listening port, target port]}. */
async function plan(replicas, bridges, store) {
  const ports = await freePorts(3 * replicas + 2 * bridges + (2 + bridges) * replicas);
  const take = () => ports.pop();
  const ofReplica = count(replicas, (i) => ({ listen: take(), admin: take(), routes: { store: `store-${i}`, peer: `peer-${i}` } }));
  const ofBridge = count(bridges, () => ({ listen: take(), admin: take() }));
  const routes = {};
  ofReplica.forEach(({ listen }, i) => {
    routes[`store-${i}`] = [take(), store.port];
    routes[`peer-${i}`] = [take(), listen];
    ofBridge.forEach((_, j) => (routes[`link-${j}-${i}`] = [take(), listen]));
  });
  return { ofReplica, ofBridge, routes };
}

/** Sentinels that watch the store, and know its follower and one another. */
async function startSentinels(store) {
  const sentinels = await Promise.all(count(SENTINELS, () => Sentinel.start({ store })));
  const deadline = performance.now() + 30_000;
  while (!(await Promise.all(sentinels.map((each) => each.ready()))).every(Boolean)) {
    if (performance.now() > deadline) throw new Error(`the Sentinels do not find everything: ${sentinels[0].log}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return sentinels;
}

/**
 * Starts everything. `bridges`: number of each kind. `standby`: whether a second server follows the store. `sentinel`:
 * whether replicas ask Sentinels for the store, which is directly connected then. `proxied`: whether connections to the
 * store, between replicas and of Links lead through the proxy. `flagsOf(index, run)`: more flags of a replica, at each
 * of its starts. `flags`: more flags of {inference, sse, ws}.
 */
export async function startReplicaFleet({ kind = 'redis', replicas = 3, bridges = 2, standby = false, sentinel = false, proxied = true,
  engine = ['--engine=scripted'], flags = {}, flagsOf = () => [] } = {}) {
  const logs = mkdtempSync(join(tmpdir(), 'runnel-replicas-'));
  const store = await Store.start({ kind });
  const follower = standby || sentinel ? await Store.start({ kind }) : undefined;
  // Not an option of its start: a server that is killed while it is the master must be the master again.
  await follower?.command('REPLICAOF', HOST, store.port);
  const sentinels = sentinel ? await startSentinels(store) : [];
  const { ofReplica, ofBridge, routes } = await plan(replicas, 2 * bridges, store);
  const proxy = proxied ? await SwitchProxy.start(routes) : undefined;
  /** Where a route begins for the process that uses it. */
  const via = (name) => `${HOST}:${routes[name][proxied ? 0 : 1]}`;
  const make = (name, file, admin, args) =>
    new Process(join(BIN, name), [`--admin_listen=${HOST}:${admin}`, DRAIN, ...args], `${HOST}:${admin}`, join(logs, `${file}.log`));
  const services = ofReplica.map(({ listen, admin }, i) => {
    const at = sentinel ? `redis+sentinel://${sentinels.map(({ address }) => address)}/main` : `redis://${via(`store-${i}`)}`;
    const common = [`--listen=${HOST}:${listen}`, `--log=${at}`, `--log_address=${via(`peer-${i}`)}`,
      ...engine, ...(flags.inference ?? [])];
    const service = make('runnel-inference', `inference-${i}`, admin, []);
    const [start, first] = [service.start.bind(service), service.args];
    return Object.assign(service, { index: i, run: 0, address: `${HOST}:${listen}`, start() {
      this.args = [...first, ...common, ...flagsOf(i, this.run++)];
      return start();
    } });
  });
  const all = ofBridge.map(({ listen, admin }, j) => {
    const kindOf = j < bridges ? 'sse' : 'ws';
    const bridge = make(`runnel-${kindOf}`, `${kindOf}-${j}`, admin, [
      `--listen=${HOST}:${listen}`, `--inference=${services.map((_, i) => via(`link-${j}-${i}`))}`, '--reconnect_backoff=50ms',
      ...(kindOf === 'sse' ? [] : ['--allowed_origins=*']), ...(flags[kindOf] ?? [])]);
    const at = `${HOST}:${listen}`;
    return Object.assign(bridge, { kind: kindOf, name: `${kindOf}-${j}`, index: j, address: at, at,
      url: kindOf === 'sse' ? `http://${at}` : `ws://${at}/v1/ws` });
  });
  process.on('exit', () => [...services, ...all].forEach((each) => each.child?.kill('SIGKILL')));
  const fleet = {
    bin: BIN, logs, store, follower, sentinels, proxy, replicas: services, all, grpcAt: services.map(({ address }) => address),
    sse: all.filter(({ kind: of }) => of === 'sse'),
    ws: all.filter(({ kind: of }) => of === 'ws'),
    storeRoutes: sentinel ? [] : services.map((_, i) => `store-${i}`),
    /** Throws if a process was not running or did not end normally. */
    async stop() {
      try {
        await stopAll([...all, ...services]);
      } finally {
        await proxy?.stop();
        await Promise.all([...sentinels, fleet.store, fleet.follower].map((each) => each?.kill()));
      }
    },
    /** After a failed start or test. */
    abandon() {
      for (const each of [...all, ...services, ...sentinels, fleet.store, fleet.follower, proxy]) each?.child?.kill('SIGKILL');
    },
  };
  try {
    await Promise.all(services.map((service) => service.start()));
    await Promise.all(all.map((bridge) => bridge.start()));
  } catch (fault) {
    fleet.abandon();
    throw fault;
  }
  return fleet;
}
