// What was down when, and whether that explains that a reader lost events. A single fault never does: readers see only
// what is stored, so the store must have lacked or forgotten the tail, and the replica that could have filled it up again
// must have been gone, or cut from the store.

// How long after a store is back its owners may take to notice and to fill it up.
const REFILL_MS = 3000;
// How long before a store forgets something a replica must have gone, for its successor to lack it too.
const MAX_BEFORE_MS = 3000;
// How long after a stop a replica may show what it makes to its readers, if the store does not say in time that it was
// taken over meanwhile: it announces that.
const RETURN_MS = 2000;

/** How long before a fault of the store a replica may have gone for both together to explain something. */
const reachOf = ({ replica, forgetsMs }) => (replica === undefined ? forgetsMs : RETURN_MS);

/**
 * The faults of a run, as {kind, replica, store, gone, from, to, forgetsMs}, with times of performance.now(). `replica`:
 * its index; undefined: all. `store`: the store could not be relied on, or a replica has announced that its generations
 * are not protected. `gone`: the replica was dead, stopped, or cut from the store. `unreached`: it was cut from the other
 * replicas, which take it for dead, or from a bridge, which then depends on the others. `forgetsMs`: how much that was
 * stored before `from` may be missing afterwards.
 */
export class FaultLog {
  faults = [];
  counts = new Map();

  begin(kind, what) {
    const fault = { kind, store: false, gone: false, unreached: false, forgetsMs: 0, to: Infinity, from: performance.now(), ...what };
    this.faults.push(fault);
    this.counts.set(kind, (this.counts.get(kind) ?? 0) + 1);
    return fault;
  }

  end(fault, at = performance.now()) {
    fault.to = at;
  }

  /** A fault without a duration. */
  note(kind, what) {
    const fault = this.begin(kind, what);
    this.end(fault, fault.from);
  }

  /**
   * The double fault that explains a gap at `at` of a reader whose last event arrived at `heardAt`; undefined if there is
   * none. `startedAt`: of its generation.
   */
  explainGap({ startedAt, heardAt, at }) {
    // A reader that has heard nothing since the store was last reliable has nothing that the store lacks.
    return this.#double(startedAt, at, (store) => heardAt >= store.from - store.forgetsMs);
  }

  /**
   * The same for a generation that does not exist any more. `endedAt`: when its last event arrived, if it has ended;
   * `endedFrom`: since when it may have ended.
   */
  explainLoss({ startedAt, endedAt, endedFrom = endedAt, at }) {
    if (endedAt === undefined) return this.#double(startedAt, at, () => true);
    // What was stored and then forgotten is in the memory of a replica, until that is gone too. What was not stored yet is
    // filled up.
    const stores = this.faults.filter(({ store, from, to, forgetsMs }) =>
      store && endedAt >= from - forgetsMs && endedFrom <= to + REFILL_MS && from <= at);
    // What forgets more explains more.
    for (const store of stores.sort((a, b) => Number(b.forgetsMs > a.forgetsMs) - Number(a.forgetsMs > b.forgetsMs))) {
      const last = store.forgetsMs > 0 ? at : store.to + REFILL_MS;
      const owner = this.faults.find(({ gone, unreached, from, to, replica }) => (gone || unreached) && to >= store.from - reachOf(store) &&
        from <= Math.min(last, at) && (store.replica === undefined || store.replica === replica));
      if (owner !== undefined) return `${store.kind}, later ${owner.kind}`;
    }
    return undefined;
  }

  /** The first fault since `since` in which a replica was gone. */
  firstGone(since, until) {
    return this.faults.find(({ gone, from }) => gone && from >= since && from <= until);
  }

  /** The faults of the life of a log in short, with times before `at`. */
  describe({ startedAt, endedFrom, heardAt, at }) {
    const ago = (time) => (time === Infinity ? 'now' : `${Math.round(time - at)}`);
    const recent = this.faults.filter(({ to }) => to >= Math.max(startedAt, at - 15_000));
    return `started ${ago(startedAt)} ms, ${endedFrom === undefined ? '' : `ended since ${ago(endedFrom)} ms, `}heard ${ago(heardAt)} ms; ${recent.map(({ kind, replica = 'all', from, to }) =>
      `${kind} (${replica}) ${ago(from)} to ${ago(to)}`).join(', ')}`;
  }

  countGone(since, until) {
    return this.faults.filter(({ gone, from }) => gone && from >= since && from <= until).length;
  }

  #double(startedAt, at, heardUnstored) {
    const stores = this.faults.filter(({ store, to, from }) => store && to + REFILL_MS >= startedAt && from <= at).filter(heardUnstored);
    const gone = this.faults.filter((fault) => (fault.gone || fault.unreached) && fault.to >= startedAt && fault.from <= at);
    for (const store of stores) {
      const owner = gone.find(({ replica, from, to }) => (store.replica === undefined || store.replica === replica) &&
        from <= store.to + REFILL_MS && to >= store.from - Math.min(reachOf(store), MAX_BEFORE_MS));
      if (owner !== undefined) return store === owner ? store.kind : `${store.kind} and ${owner.kind}`;
    }
    return undefined;
  }
}

/** Judges the losses of streams by a fault log, and measures their takeovers: see CheckedLog. */
export class Judge {
  /** Milliseconds from a fault to the next event of a stream, by the kind of fault. */
  resumes = new Map();
  takeovers = 0;

  /** `logs`: gives the fault log what the replicas announce. */
  constructor(faults, logs) {
    Object.assign(this, { faults, logs });
  }

  gap({ startedAt, heardAt }) {
    this.logs?.read();
    return this.faults.explainGap({ startedAt, heardAt, at: performance.now() });
  }

  loss({ startedAt, endedAt, endedFrom }) {
    this.logs?.read();
    return this.faults.explainLoss({ startedAt, endedAt, endedFrom, at: performance.now() });
  }

  describe({ startedAt, endedFrom, heardAt }) {
    return this.faults.describe({ startedAt, endedFrom, heardAt, at: performance.now() });
  }

  /** Whether a bridge was cut from a replica while the log was read: its stream may end early, but loses nothing. */
  linkCut({ startedAt }) {
    return this.faults.faults.some(({ kind, to }) => kind === 'bridge cut from a replica' && to >= startedAt);
  }

  moved(log) {
    // A second reading has no part in the takeovers.
    if (log.again) return;
    log.moves = (log.moves ?? 0) + 1;
    this.takeovers++;
    // Before its first token a stream waits for other reasons as well.
    if (log.last < 2) return;
    const now = performance.now();
    const fault = this.faults.firstGone(log.heardAt, now);
    if (fault === undefined) return;
    this.resumes.set(fault.kind, [...(this.resumes.get(fault.kind) ?? []), now - fault.from]);
  }
}
