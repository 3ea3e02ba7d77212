// Kills, stops and drains replicas, breaks the store and cuts connections at random moments, and notes in a fault log what
// was down when.

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const STOPPED_MS = 3000;
// With an fsync a second, what a killed store may forget.
const EVERYSEC_MS = 2000;
// What a follower may lack of its master.
const REPLICATION_MS = 1000;
const SLOW_MS = 20;
// For Sentinels to agree, and to notice a server that comes back.
const FAILOVER_MS = 60_000;

/** Runs faults of some kinds, one about every `everyMs`, until `stopped()`; a kind is repeated in `kinds` to weigh it. */
async function faultsAtRandom(kinds, random, { everyMs, stopped }) {
  const running = new Set();
  let failure;
  while (!stopped() && failure === undefined) {
    const until = performance.now() + random.whole(everyMs / 2, everyMs * 1.5);
    while (performance.now() < until && !stopped()) await pause(20);
    if (stopped()) break;
    const one = random.pick(kinds)().catch((error) => (failure ??= error)).finally(() => running.delete(one));
    running.add(one);
  }
  await Promise.all(running);
  if (failure !== undefined) throw failure;
}

export class ReplicaFaults {
  #busy = new Set();
  badExits = 0;

  constructor({ fleet, faults, metrics, random }) {
    Object.assign(this, { fleet, faults, metrics, random });
  }

  run(options) {
    const kill = () => this.kill();
    const kinds = [kill, kill, kill, kill, () => this.kill(this.random.whole(1000, 4000)), () => this.stop(), () => this.stop(),
      () => this.drain(), () => this.drain(), () => this.pair()];
    return faultsAtRandom(kinds, this.random, options);
  }

  /** SIGKILL, and a start at once or after a while. */
  async kill(awayMs = 0) {
    await this.#with(1, ([replica]) => this.#killOne(replica, awayMs));
  }

  /** SIGSTOP past the lease. */
  async stop() {
    await this.#with(1, ([replica]) => this.#stopOne(replica));
  }

  /** SIGTERM: what it runs is handed over. */
  async drain() {
    await this.#with(1, async ([replica]) => {
      await this.metrics.sample(replica);
      const fault = this.faults.begin('drain', { gone: true, replica: replica.index });
      const [code] = await replica.kill('SIGTERM');
      if (code !== 0) this.badExits++;
      await replica.start();
      this.faults.end(fault, fault.from);
    });
  }

  /** Two at once. */
  async pair() {
    const other = this.random.chance(0.5);
    await this.#with(2, ([first, second]) => Promise.all([
      this.#killOne(first, 0), other ? this.#killOne(second, 1000) : this.#stopOne(second),
    ]));
  }

  async #killOne(replica, awayMs) {
    await this.metrics.sample(replica);
    if (replica.child.exitCode !== null || replica.child.signalCode !== null) this.badExits++;
    this.faults.note('kill -9', { gone: true, replica: replica.index });
    await replica.kill('SIGKILL');
    await pause(awayMs);
    await replica.start();
  }

  async #stopOne(replica) {
    await this.metrics.sample(replica);
    const fault = this.faults.begin('stop', { gone: true, replica: replica.index });
    replica.child.kill('SIGSTOP');
    await pause(STOPPED_MS);
    replica.child.kill('SIGCONT');
    this.faults.end(fault);
  }

  /** Takes `count` replicas that have no fault now, and never the last one. */
  async #with(count, act) {
    const free = this.fleet.replicas.filter((replica) => !this.#busy.has(replica));
    if (free.length <= count) return;
    const chosen = [];
    while (chosen.length < count) chosen.push(...free.splice(this.random.whole(0, free.length - 1), 1));
    for (const replica of chosen) this.#busy.add(replica);
    await act(chosen);
    for (const replica of chosen) this.#busy.delete(replica);
  }
}

export class StoreFaults {
  constructor({ fleet, faults, random }) {
    Object.assign(this, { fleet, faults, random });
  }

  run(options) {
    const { fleet } = this;
    const kinds = [() => this.freeze(50), () => this.fill(), () => this.flush()];
    if (fleet.sentinels.length > 0) {
      // What takes longer than a Sentinel waits is a failover.
      kinds.push(...['SIGKILL', 'SIGSTOP', 'command'].map((how) => () => this.failOverBySentinel(how)), () => this.killSentinel());
    } else {
      kinds.push(() => this.restart(), () => this.freeze(500), () => this.freeze(5000));
      if (fleet.proxy !== undefined) kinds.push(() => this.slow(), () => this.cutOwner());
      if (fleet.follower !== undefined && fleet.proxy !== undefined) kinds.push(() => this.failOver(), () => this.failOver());
    }
    // One after another: what several of them explain would explain everything.
    let last = Promise.resolve();
    return faultsAtRandom(kinds.map((kind) => () => (last = last.then(kind))), this.random, options);
  }

  async restart(awayMs = this.random.pick([0, 300, 1500])) {
    const fault = this.faults.begin('store killed', { store: true, forgetsMs: EVERYSEC_MS });
    await this.fleet.store.kill();
    await pause(awayMs);
    await this.fleet.store.start();
    this.faults.end(fault);
  }

  async freeze(ms) {
    const fault = this.faults.begin(`store stopped for ${ms} ms`, { store: true });
    this.fleet.store.freeze();
    await pause(ms);
    this.fleet.store.thaw();
    this.faults.end(fault);
  }

  async fill() {
    const fault = this.faults.begin('store full', { store: true });
    await this.fleet.store.command('CONFIG', 'SET', 'maxmemory', '1');
    await pause(this.random.whole(500, 3000));
    await this.fleet.store.command('CONFIG', 'SET', 'maxmemory', '0');
    this.faults.end(fault);
  }

  /** Everything is forgotten: of what has ended, only the replica that ran it knows. */
  async flush() {
    const fault = this.faults.begin('store flushed', { store: true, forgetsMs: Infinity });
    await this.fleet.store.command('FLUSHALL');
    this.faults.end(fault);
  }

  /** The follower becomes the master while the master is stopped, and the other way around. */
  async failOver() {
    const { fleet } = this;
    const old = fleet.store;
    const next = fleet.follower;
    await this.#follows(next);
    const fault = this.faults.begin('store failed over', { store: true, forgetsMs: REPLICATION_MS });
    old.freeze();
    await pause(this.random.pick([0, 200, 1000]));
    await next.command('REPLICAOF', 'NO', 'ONE');
    Object.assign(fleet, { store: next, follower: old });
    await fleet.proxy.set(fleet.storeRoutes, { target: next.port });
    this.faults.end(fault);
    old.thaw();
    await old.command('REPLICAOF', '127.0.0.1', next.port);
  }

  /**
   * The Sentinels make the follower the master: because the master is dead or stopped, or because they are told to. A
   * stopped one takes itself for the master again until they notice, and what it is given then is lost.
   */
  async failOverBySentinel(how) {
    const { fleet } = this;
    const [old, next] = [fleet.store, fleet.follower];
    await this.#follows(next);
    await this.#until('the Sentinels do not see the follower', async () => (await Promise.all(fleet.sentinels.map((each) => each.ready()))).every(Boolean));
    const fault = this.faults.begin(`store failed over by Sentinel, ${how}`, { store: true, forgetsMs: REPLICATION_MS });
    // Rejected while the Sentinel has not heard from the follower for a moment.
    if (how === 'command') await this.#until('the Sentinel rejects a failover', () => fleet.sentinels[0].failOver());
    else if (how === 'SIGSTOP') old.freeze();
    else await old.kill();
    await this.#until('the Sentinels do not agree on the follower', async () =>
      (await Promise.all(fleet.sentinels.map((each) => each.masterPort()))).every((port) => port === next.port));
    Object.assign(fleet, { store: next, follower: old });
    if (how === 'SIGSTOP') old.thaw();
    // A killed one would take itself for the master as well, but nobody asks it.
    if (how === 'SIGKILL') await old.start().then(() => old.command('REPLICAOF', '127.0.0.1', next.port));
    await this.#until('the old master does not follow', async () => (await old.info('replication')).role === 'slave');
    this.faults.end(fault);
  }

  /** One of three, which replicas may be asking just now. */
  async killSentinel() {
    const fault = this.faults.begin('Sentinel killed', {});
    const sentinel = this.random.pick(this.fleet.sentinels);
    await sentinel.kill();
    await pause(this.random.whole(0, 1000));
    await sentinel.start();
    this.faults.end(fault);
  }

  #follows(next) {
    return this.#until('the follower of the store does not reach it', async () => (await next.info('replication')).master_link_status === 'up');
  }

  async #until(otherwise, condition) {
    const deadline = performance.now() + FAILOVER_MS;
    // A server may close the connection, as Sentinel makes an old master do.
    while (!(await condition().catch(() => false))) {
      if (performance.now() > deadline) throw new Error(`${otherwise}: ${[this.fleet.store, ...this.fleet.sentinels].map(({ log }) => log)}`);
      await pause(50);
    }
  }

  /** The network to the store is slower, but not slow enough to lose anything. */
  async slow() {
    const fault = this.faults.begin('slow store', {});
    await this.fleet.proxy.set(this.fleet.storeRoutes, { delayMs: SLOW_MS });
    await pause(3000);
    await this.fleet.proxy.set(this.fleet.storeRoutes);
    this.faults.end(fault);
  }

  /** One replica does not reach the store, silently or not. */
  async cutOwner() {
    const replica = this.random.whole(0, this.fleet.replicas.length - 1);
    const fault = this.faults.begin('owner cut from the store', { store: true, gone: true, replica });
    await this.fleet.proxy.set(`store-${replica}`, this.random.chance(0.5) ? { dark: true } : { refuses: true });
    await pause(this.random.pick([300, 1000, 3000]));
    await this.fleet.proxy.set(`store-${replica}`);
    this.faults.end(fault);
  }
}

/** Partitions that lose nothing: between bridges and replicas, and between replicas. */
export class NetworkFaults {
  constructor({ fleet, faults, random }) {
    Object.assign(this, { fleet, faults, random });
  }

  run(options) {
    return faultsAtRandom([() => this.cutLink(), () => this.cutPeer()], this.random, options);
  }

  async cutLink() {
    const bridge = this.random.pick(this.fleet.all);
    const replica = this.random.whole(0, this.fleet.replicas.length - 1);
    await this.#cut('bridge cut from a replica', `link-${bridge.index}-${replica}`, { unreached: true, replica });
  }

  async cutPeer() {
    const replica = this.random.whole(0, this.fleet.replicas.length - 1);
    await this.#cut('replica cut from the others', `peer-${replica}`, { unreached: true, replica });
  }

  async #cut(kind, route, what) {
    const fault = this.faults.begin(kind, what);
    await this.fleet.proxy.set(route, this.random.chance(0.5) ? { dark: true } : { refuses: true });
    await pause(this.random.pick([500, 3000]));
    await this.fleet.proxy.set(route);
    this.faults.end(fault);
  }
}
