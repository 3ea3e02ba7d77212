// Numbers and notices as words.

export const TRANSPORTS = { sse: 'SSE', websocket: 'WebSocket', poll: 'Polling' };

export function formatMs(ms) {
  if (ms === null) return '–';
  return ms < 10_000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

export const formatRate = (rate) => (rate === null ? '–' : rate < 100 ? rate.toFixed(1) : String(Math.round(rate)));
export const formatBytes = (bytes) => (bytes < 1000 ? `${bytes} B` : `${(bytes / 1000).toFixed(1)} kB`);
export const plural = (count, noun) => `${count} ${noun}${count === 1 ? '' : 's'}`;

const SUFFIXES = { one: 'st', two: 'nd', few: 'rd', other: 'th' };
const rules = new Intl.PluralRules('en', { type: 'ordinal' });
const ordinal = (n) => `${n}${SUFFIXES[rules.select(n)]}`;

export function explain(error) {
  return `${error.code}: ${error.message}`;
}

/** What a generation does that has no token yet. `progress` may be null. */
export function describeProgress(progress) {
  switch (progress?.stage) {
    case 'queued':
      if (progress.queuePosition === null) return 'waiting in the queue';
      return `waiting, ${ordinal(progress.queuePosition)} in the queue`;
    case 'prefill':
      if (progress.prefillShare === null) return 'reading the prompt';
      return `reading the prompt, ${Math.floor(progress.prefillShare * 100)} %`;
    default:
      return 'waiting for the first token';
  }
}

/** Why a reader has no connection, and until when; `waiting` is its last notice of the kind. */
export function describeWait({ ms, error, offline }) {
  if (offline) return 'no network: it goes on when there is one';
  return ms < 1000 ? error.message : `${error.message}: again in ${Math.round(ms / 1000)} s`;
}

export function describeBuffered({ heldMs, offer }) {
  const held = heldMs === null ? '' : `${(heldMs / 1000).toFixed(1)} s at a time`;
  const how = held ? `Tokens are held back on the way, ${held}` : 'Nothing comes through';
  return offer ? `${how}: ${TRANSPORTS[offer]} may pass.` : `${how}.`;
}
