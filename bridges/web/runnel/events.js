// Events as they are sent: JSON objects with a type.
import { broken, refusal } from './errors.js';

export function parseEvent(text) {
  let event;
  try {
    event = JSON.parse(text);
  } catch (cause) {
    throw broken('bad_event', 'an event is not JSON', { cause });
  }
  return checkEvent(event);
}

export function checkEvent(event) {
  if (event?.error && event.type === undefined) throw refusal(event.error, event.error.status ?? 500);
  if (typeof event?.type !== 'string') throw broken('bad_event', 'an event has no type');
  return event;
}

/** The log has ended at the cursor. A reader that has not applied a terminal event must read the last event again. */
export const alreadyEnded = () => broken('already_ended', 'the generation ended at the cursor');

/**
 * The progress in a heartbeat, or null if nothing in it can be shown.
 *
 * @param {{ stage?: unknown, queue_position?: unknown, prefill_share?: unknown }} [state]
 */
export function readProgress({ stage, queue_position: position, prefill_share: share } = {}) {
  if (typeof stage !== 'string' || !/^[a-z_]{1,32}$/.test(stage)) return null;
  return {
    stage,
    queuePosition: typeof position === 'number' && Number.isSafeInteger(position) && position >= 1 ? position : null,
    prefillShare: typeof share === 'number' && share >= 0 && share <= 1 ? share : null,
  };
}
