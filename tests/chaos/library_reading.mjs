// The same as reading.mjs with runnel.js as the reader under test: it reconnects by itself, and is moved to other
// transports and processes.
import { attach, stream } from '../../bridges/web/runnel.js';
import { webSocketClass } from './readers/web_socket.mjs';
import { isPlain, textOf } from './script.mjs';

// The codes of a generation that the service does not have any more.
const LOST = ['generation_lost', 'generation_not_found', 'generation_expired'];
const TRANSPORTS = ['sse', 'websocket', 'poll'];

function optionsFor(network, random) {
  return {
    transport: random.pick(TRANSPORTS),
    baseUrl: random.pick(network.fleet.sse).url,
    wsUrl: random.pick(network.fleet.ws).url,
    WebSocket: webSocketClass(network.idleMs), idleTimeoutMs: network.idleMs, pollWaitSeconds: 1, backoffBaseMs: 30,
    backoffCapMs: 500, maxRetries: 60, random: () => random.share(),
  };
}

/** Breaks the connection in one of the ways that a program can. Returns the reading that continues. */
function disturb(reading, log, network, random) {
  const how = random.pick(['drop', 'switch', 'move']);
  if (how === 'drop') reading.drop();
  if (how === 'switch') reading.switchTransport(random.pick(TRANSPORTS));
  if (how !== 'move' || log.id === undefined) return reading;
  // Not reading.cursor, which may be ahead of the iteration.
  reading.close();
  return attach(log.id, { ...optionsFor(network, random), after: log.last, epoch: log.epoch, texts: log.texts, parts: log.parts.map(cursorOf) });
}

/** The parts of a choice as attach() takes them. */
const cursorOf = (parts) => (isPlain(parts) ? [] : parts.map((part, index) => ({ index, ...part })));

/** Measures the time from a cut to the next event, like the strict readers. */
function watch(onResume) {
  let cutAt;
  return {
    onStatus: (status) => {
      if (status === 'reconnecting') cutAt ??= performance.now();
    },
    heard: (silent) => {
      if (cutAt !== undefined) onResume(performance.now() - cutAt, silent);
      cutAt = undefined;
    },
  };
}

export async function readWithLibrary(network, log, random, { deadlineMs, onResume }) {
  const { tally, script } = log;
  const { onStatus, heard } = watch(onResume);
  const on = log.connection('runnel.js');
  let reading = stream(script.body(), { ...optionsFor(network, random), idempotencyKey: script.key, onStatus });
  let cancelAt = script.cancelAt ?? Infinity;
  let reconnects = 0;
  const timer = setTimeout(() => {
    tally.fault('stuck', `runnel.js ${reading.id} at ${log.last} of ${script.lastSeq}, ${reading.status} by ` +
      `${reading.transport}, last ${reading.lastError?.code}: ${reading.lastError?.message}`);
    reading.close();
  }, deadlineMs);
  try {
    while (!log.ended && tally.faults === 0) {
      // A failure is judged by its event; the rejection repeats it.
      reading.result.catch(() => {});
      const disturbAfter = random.chance(0.6) ? random.whole(1, 60) : Infinity;
      let taken = 0;
      let position = 0;
      for await (const event of reading) {
        // An iterator begins with the first event of its reading, and a reading may be iterated again.
        if (position++ < (reading.taken ?? 0)) continue;
        reading.taken = position;
        heard(reading.lastError?.code === 'idle_timeout');
        log.apply(event, on);
        if (event.seq >= cancelAt) {
          cancelAt = Infinity;
          reading.cancel().catch(() => {});
        }
        if (log.ended || tally.faults > 0 || ++taken >= disturbAfter) break;
      }
      if (log.ended || tally.faults > 0) break;
      tally.hops++;
      // A reconnect that this test forced does not count as a cut.
      reconnects--;
      const before = reading;
      reading = disturb(reading, log, network, random);
      if (reading !== before) reconnects += before.stats.reconnects;
    }
    if (log.terminal?.type === 'done') await checkResult(reading, log);
  } catch (error) {
    const reported = log.ended && log.terminal.type === 'failed';
    const lost = LOST.includes((error.cause ?? error).code) && log.lost();
    if (!reported && !lost) tally.fault('refused', `runnel.js ${reading.id} at ${log.last}: ${error.stack}; ${log.describe()}`);
  } finally {
    clearTimeout(timer);
    reading.close();
  }
  reconnects += reading.stats.reconnects;
  for (let i = 0; i < reconnects; i++) tally.cut('runnel.js', 'reconnected');
  return reconnects > 0;
}

/** Whether the library has the parts of a choice, and hands out a call as complete only if the service says so. */
function agrees(parts, choice, end) {
  const complete = (index) => (isPlain(parts) ? undefined : end.parts[index].complete) ?? true;
  const expected = parts.map(({ kind, content, id, name }, index) => [kind, content, id, name, complete(index) ? 'complete' : 'incomplete']);
  const read = choice.parts.map(({ kind, content, id, name, state }) => [kind, content, id, name, state]);
  return JSON.stringify(read) === JSON.stringify(expected);
}

async function checkResult(reading, log) {
  const result = await reading.result;
  const right = log.script.parts(log.last - 1).every((parts, choice) => textOf(parts) === (result.texts[choice] ?? '') &&
    agrees(parts, result.choices[choice], log.terminal.choices[choice]));
  if (!result.verified) log.tally.fault('unverified', `runnel.js ${reading.id}`);
  if (result.verified && !right) log.tally.fault('falseVerified', `runnel.js ${reading.id}: ${result.texts}`);
}
