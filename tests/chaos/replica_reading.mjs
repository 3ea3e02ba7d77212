// One stream of the shared log's chaos: read to its end by one of the readers, then perhaps once more from its beginning.
import { CheckedLog } from './checked_log.mjs';
import { Break, Refused } from './faults.mjs';
import { readWithLibrary } from './library_reading.mjs';
import { readChatStream } from './readers/chat.mjs';
import { readToEnd } from './reading.mjs';

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** The reader of a stream, by its number. */
export const readerOf = (index, engine) => (index % 4 === 3 ? 'library' : index % 8 === 5 && engine === 'scripted' ? 'chat' : 'strict');

/** Reads a log; resolves with true if a fault has hit it and it is complete all the same. */
export async function readStream(network, log, random, { reader, deadlineMs }) {
  const options = { deadlineMs, onResume: () => {} };
  if (reader === 'chat') return readChat(network, log, random, deadlineMs);
  const read = reader === 'library' ? readWithLibrary : readToEnd;
  const cut = await read(network, log, random, options);
  return log.terminal !== undefined && log.terminal.type !== 'lost' && (cut || (log.moves ?? 0) > 0);
}

/**
 * Reads a log that has ended from its beginning. A script that learns from what it reads has not forgotten the first
 * reading, so any difference is a fault.
 */
export async function readAgain(network, { script, tally, judge, id, startedAt, endedAt, endedFrom }, random, deadlineMs) {
  const again = Object.assign(new CheckedLog(script, tally, judge), { id, startedAt, endedAt, endedFrom, again: true });
  // What is cancelled twice ends where it ended before.
  const { cancelAt } = script;
  script.cancelAt = cancelAt === undefined ? undefined : Infinity;
  await readToEnd(network, again, random, { deadlineMs, onResume: () => {} });
  script.cancelAt = cancelAt;
  return again;
}

/** A stream of the chat route cannot resume: after a cut, which only a fault may explain, it starts again. */
async function readChat(network, log, random, deadlineMs) {
  const { script, tally, judge } = log;
  const deadline = Date.now() + deadlineMs;
  for (;;) {
    Object.assign(log, { startedAt: performance.now(), heardAt: performance.now() });
    try {
      const { text, finish } = await readChatStream(random.pick(network.fleet.sse).url, script, network);
      const hit = judge.faults.countGone(log.startedAt, performance.now());
      // This route does not say how often its log was taken over.
      const event = { text, seq: script.lastSeq - 1, epoch: Infinity };
      const right = (script.learn?.(event, 2) ?? true) && text === script.texts()[0] && finish === 'stop';
      if (!right) return tally.fault('wrongText', `chat, ${finish}: ${text.slice(0, 300)}`);
      log.terminal = { type: 'done' };
      return hit > 0;
    } catch (error) {
      if (error instanceof Refused && !error.retryable && log.lost()) return false;
      const cut = error instanceof Break;
      // After a silence it was the reader that gave up: the stream may well go on.
      if (cut && !error.silent && judge.loss(log) === undefined && !judge.linkCut(log)) {
        tally.fault('lost', `chat: ${error.message}`);
        return false;
      }
      if ((!cut && !error.retryable) || Date.now() > deadline) {
        tally.fault('refused', `chat: ${error.stack}`);
        return false;
      }
      tally.cut('chat', error.kind ?? `${error.status} ${error.code}`);
      script.relearn?.([[]], 0, 0);
      await pause(random.whole(20, 200));
    }
  }
}
