// One stream, read to its end by a reader that hops between transports and processes and reconnects whenever it is cut.
import { Break, Refused, refusal } from './faults.mjs';
import { readGrpc } from './readers/grpc.mjs';
import { bodyText, request } from './readers/http.mjs';
import { readPoll } from './readers/poll.mjs';
import { readSse } from './readers/sse.mjs';
import { WsConnection } from './readers/ws.mjs';

export const TRANSPORTS = ['fetch', 'post', 'eventsource', 'poll', 'ws', 'proto', 'grpc'];
const SHARED_STREAMS = 8;

/** Sockets that several readers share. */
class SocketPool {
  #open = new Map();

  async take(bridge, format, options, random) {
    const key = `${bridge.name} ${format}`;
    const shared = (this.#open.get(key) ?? []).filter(({ usable, users }) => usable && users < SHARED_STREAMS);
    if (shared.length > 0 && random.chance(0.7)) {
      const connection = random.pick(shared);
      connection.users++;
      return connection;
    }
    const connection = Object.assign(await WsConnection.open(bridge.url, { format, ...options }), { users: 1 });
    this.#open.set(key, [...(this.#open.get(key) ?? []).filter(({ usable }) => usable), connection]);
    return connection;
  }

  release(connection) {
    if (--connection.users === 0) connection.close();
  }
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
// A generation that the service does not have any more.
const isLoss = (error) => error instanceof Refused && (error.status === 404 || error.status === 410);
const comesBack = (error) => error instanceof Break || (error instanceof Refused && error.retryable);

/** Opens readings of one fleet. */
export class Network {
  constructor(fleet, idleMs) {
    Object.assign(this, { fleet, idleMs, pool: new SocketPool() });
  }

  /** The events after a cursor over `transport`, through a process that `random` picks. */
  async* read(transport, { random, ...what }) {
    const options = { ...what, idleMs: this.idleMs };
    if (transport === 'grpc') return yield* readGrpc(random.pick([this.fleet.grpcAt].flat()), options);
    if (transport === 'ws' || transport === 'proto') {
      const format = transport === 'ws' ? 'json' : 'proto';
      const connection = await this.pool.take(random.pick(this.fleet.ws), format, { idleMs: this.idleMs }, random);
      try {
        yield* connection.read(options);
      } finally {
        this.pool.release(connection);
      }
      return undefined;
    }
    const origin = random.pick(this.fleet.sse).url;
    if (transport === 'poll') {
      return yield* readPoll(origin, { ...options, waitSeconds: random.pick([undefined, 1, 2]) });
    }
    return yield* readSse(origin, { ...options, style: transport });
  }

  /** Cancels the generation; repeats the request until it gets a response. */
  async cancel(id, random, deadline) {
    for (;;) {
      try {
        const url = `${random.pick(this.fleet.sse).url}/v1/generations/${id}/cancel`;
        const response = await request(url, { method: 'POST', idleMs: this.idleMs });
        const text = await bodyText(response);
        if (response.statusCode === 200) return;
        throw refusal('cancel', response.statusCode, text);
      } catch (error) {
        if (!comesBack(error) || Date.now() > deadline) throw error;
        await pause(random.whole(0, 60));
      }
    }
  }
}

/**
 * Reads to the end, then once more after it. `onResume(ms, silent)`: the time from a cut to the next event; silent if
 * the cut was not reported to the reader. Resolves with true if the reader was cut at least once; counts faults in the
 * log's tally.
 */
export async function readToEnd(network, log, random, { deadlineMs, onResume }) {
  const { tally, script } = log;
  const deadline = Date.now() + deadlineMs;
  let cancelAt = script.cancelAt ?? Infinity;
  let cutAt;
  let cuts = 0;
  for (let again = 0; !log.ended; again++) {
    if (Date.now() > deadline) {
      tally.fault('stuck', `${log.id ?? script.key} at ${log.last} of ${script.lastSeq}, last ${cutAt?.why}`);
      return cuts > 0;
    }
    const transport = random.pick(TRANSPORTS);
    const on = log.connection(transport);
    const hopAfter = random.chance(0.5) ? random.whole(1, 40) : Infinity;
    let heard = performance.now();
    let taken = 0;
    let left = false;
    try {
      for await (const event of network.read(transport, { script, id: log.id, after: log.last, epoch: log.epoch, random })) {
        log.apply(event, on);
        if (event.type === 'attached' && tally.faults === 0) continue;
        heard = performance.now();
        if (cutAt !== undefined) onResume(heard - cutAt.at, cutAt.silent);
        cutAt = undefined;
        if (tally.faults > 0 || log.ended) break;
        left = ++taken >= hopAfter;
        if (left) break;
        if (event.seq >= cancelAt) {
          cancelAt = Infinity;
          await network.cancel(log.id, random, deadline);
        }
      }
      if (tally.faults > 0) return cuts > 0;
      // A normal end means that there is no more, and a reader relies on it.
      if (!log.ended && !left) tally.fault('badTerminal', `${log.id} on ${transport}: an end after ${log.last}`);
      if (!log.ended) tally.hops++;
    } catch (error) {
      if (!comesBack(error)) {
        // Also before its first event: a start had its response, and then the generation was lost.
        if (isLoss(error) && log.lost()) break;
        tally.fault('refused', `${log.id ?? script.key} after ${log.last} on ${transport}: ${error.stack}; ${log.describe()}`);
        return cuts > 0;
      }
      log.cuts = ++cuts;
      tally.cut(transport, error.kind ?? `${error.status} ${error.code}`);
      // A silent connection was cut at its last byte; any other when the reader noticed.
      if (cutAt !== undefined) cutAt.silent ||= error.silent === true;
      cutAt ??= { at: error.silent ? heard : performance.now(), silent: error.silent === true,
        why: `${transport} ${error.message}` };
      await pause(random.whole(0, 60));
    }
  }
  if (log.terminal.type !== 'lost') await readBeyondEnd(network, log, random, deadline);
  return cuts > 0;
}

/** After the terminal event there must be nothing, or on a WebSocket that event again. */
async function readBeyondEnd(network, log, random, deadline) {
  for (;;) {
    const transport = random.pick(TRANSPORTS);
    try {
      for await (const event of network.read(transport, { script: log.script, id: log.id, after: log.last, epoch: log.epoch, random })) {
        if (event.type === 'attached') continue;
        const repeats = transport === 'ws' || transport === 'proto';
        if (repeats && event.seq === log.last && event.type === log.terminal.type) continue;
        if (event.type === 'gap' && log.lost()) return;
        const what = JSON.stringify(event).slice(0, 300);
        return log.tally.fault('badTerminal', `${log.id} after its end on ${transport}: ${what}; ${log.describe()}`);
      }
      return;
    } catch (error) {
      if (isLoss(error) && log.lost()) return;
      if (!comesBack(error) || Date.now() > deadline) {
        return log.tally.fault('badTerminal', `${log.id} after its end on ${transport}: ${error.stack}; ${log.describe()}`);
      }
      await pause(random.whole(0, 60));
    }
  }
}
