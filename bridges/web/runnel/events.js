// An event of the wire: JSON with a type.
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
  if (typeof event?.type !== 'string') throw broken('bad_event', 'an event without type');
  return event;
}

// The log has ended at our cursor. Unless a terminal event was applied, the driver has to look at the last one again.
export const alreadyEnded = () => broken('already_ended', 'the generation ended at the cursor');

/** What a heartbeat says of a generation that has no token yet; null if it says nothing that can be shown. */
export function readProgress({ stage, queue_position: position, prefill_share: share } = {}) {
  if (typeof stage !== 'string' || !/^[a-z_]{1,32}$/.test(stage)) return null;
  return {
    stage,
    queuePosition: Number.isSafeInteger(position) && position >= 1 ? position : null,
    prefillShare: share >= 0 && share <= 1 ? share : null,
  };
}
