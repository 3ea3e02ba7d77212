// Well-behaved readers: one stream after another, each compared with its expected events. A stream that is cut, loses
// events or is delayed is a fault: an attack must not affect it.
import { CheckedLog, Tally } from '../chaos/checked_log.mjs';
import { readGrpc } from '../chaos/readers/grpc.mjs';
import { request } from '../chaos/readers/http.mjs';
import { events } from '../chaos/readers/sse.mjs';
import { WsConnection } from '../chaos/readers/ws.mjs';
import { Script } from '../chaos/script.mjs';
import { SLACK, pause, until } from './raw.mjs';

// 20 tokens a second for 4 s. The end of a suite waits as long for the last streams.
const STREAM = { tokens: 80, pace: 20 };
const IDLE_MS = 30_000;
/** The longest pause of such a stream that is not a fault. */
const STALL_MS = 4000;

const READ = {
  async* sse({ address }, { script, headers }) {
    const response = await request(`http://${address}/v1/generations`, {
      method: 'POST', idleMs: IDLE_MS, body: JSON.stringify(script.body()),
      headers: { ...headers, 'content-type': 'application/json', accept: 'text/event-stream' },
    });
    if (response.statusCode !== 200) throw new Error(`status ${response.statusCode}`);
    try {
      yield* events(response);
    } finally {
      response.destroy();
    }
  },
  async* ws({ address }, { script, headers }) {
    const connection = await WsConnection.open(`ws://${address}/v1/ws`, { idleMs: IDLE_MS, headers });
    try {
      yield* connection.read({ script, after: 0 });
    } finally {
      connection.close();
    }
  },
  grpc: ({ address }, { script }) => readGrpc(address, { script, after: 0, idleMs: IDLE_MS }),
};

/** A stream of the scripted engine, whose events are all known. */
const scripted = (seed, tally) => new CheckedLog(new Script({ ...STREAM, seed }), tally);

class Bystander {
  constructor(transport, target, headers, seed, { makeLog = scripted, restMs = 0 }) {
    Object.assign(this, { transport, target, headers, seed, makeLog, restMs, tally: new Tally(), faults: [], verified: 0 });
    this.heardAt = performance.now();
    this.longestMs = 0;
    this.running = this.#run();
  }

  /** Records a fault as a line of text. */
  #fault(what) {
    this.faults.push(`a ${this.transport} stream: ${what}`);
  }

  async #run() {
    for (let round = 0; !this.stopped; round++) {
      const log = this.makeLog(this.seed + 1000 * round, this.tally);
      try {
        this.heardAt = performance.now();
        await this.#follow(log);
        if (this.restMs) await pause(this.restMs);
      } catch (error) {
        this.#fault(`cut after event ${log.last}: ${error.message}`);
        // Its process may be restarting.
        await pause(200);
      }
    }
  }

  async #follow(log) {
    const on = log.connection(this.transport);
    const faults = this.tally.faults;
    for await (const event of READ[this.transport](this.target, { script: log.script, headers: this.headers })) {
      const now = performance.now();
      const silence = now - this.heardAt;
      this.heardAt = now;
      this.longestMs = Math.max(this.longestMs, silence);
      if (silence > STALL_MS * SLACK) this.#fault(`paused for ${Math.round(silence)} ms before event ${event.seq}`);
      log.apply(event, on);
      if (this.tally.faults > faults) return this.#fault(this.tally.firstFaults.at(-1));
    }
    if (log.terminal?.type !== 'done') return this.#fault(`ended with ${log.terminal?.type} after event ${log.last}`);
    this.verified++;
  }
}

export class Bystanders {
  #all;

  /**
   * `counts`: readers by transport; `targets`: a process by transport. `how.makeLog(seed, tally)`: the expected log, by
   * default of the scripted engine; `how.restMs`: the time between two streams.
   */
  constructor(counts, targets, headers, how = {}) {
    this.#all = Object.entries(counts).flatMap(([transport, count], kind) => Array.from({ length: count },
      (_, i) => new Bystander(transport, targets[transport], headers, 100 * kind + i + 1, how)));
  }

  /** Resolves once every reader has received another event, or has a fault. */
  async progress() {
    const start = performance.now();
    await Promise.all(this.#all.map((each) => until(STALL_MS, `an event of a ${each.transport} stream`,
      () => each.heardAt > start || each.faults.length > 0)));
  }

  /** The faults since the last call. */
  takeFaults() {
    return this.#all.flatMap((each) => each.faults.splice(0));
  }

  /** Reads every stream to its end. Resolves with their counts. */
  async finish() {
    for (const each of this.#all) each.stopped = true;
    await Promise.all(this.#all.map(({ running }) => running));
    return {
      verified: this.#all.reduce((sum, { verified }) => sum + verified, 0),
      longestMs: Math.max(...this.#all.map(({ longestMs }) => longestMs)),
    };
  }
}
