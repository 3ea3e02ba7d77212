// Numbers and notices as words.

export const TRANSPORTS = { sse: 'SSE', websocket: 'WebSocket', poll: 'Polling' };

export function formatMs(ms) {
  if (ms === null) return '–';
  return ms < 10_000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

export const formatDuration = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);
export const formatRate = (rate) => (rate === null ? '–' : rate < 100 ? rate.toFixed(1) : String(Math.round(rate)));
export const formatBytes = (bytes) => (bytes < 1000 ? `${bytes} B` : `${(bytes / 1000).toFixed(1)} kB`);
export const plural = (count, noun) => `${count} ${noun}${count === 1 ? '' : 's'}`;

const SUFFIXES = { one: 'st', two: 'nd', few: 'rd', other: 'th' };
const rules = new Intl.PluralRules('en', { type: 'ordinal' });
const ordinal = (n) => `${n}${SUFFIXES[rules.select(n)]}`;

export function explain(error) {
  return `${error.code}: ${error.message}`;
}

/** What a generation without a token is doing. `progress` may be null. */
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

/** Why a reader has no connection, and when it tries again. Takes its last `waiting` notice. */
export function describeWait({ ms, error, offline }) {
  if (offline) return 'offline: resumes when the network is back';
  return ms < 1000 ? error.message : `${error.message}: trying again in ${Math.round(ms / 1000)} s`;
}

export function describeBuffered({ heldMs, offer }) {
  const held = heldMs === null ? 'An intermediary lets nothing through'
    : `An intermediary is buffering: tokens arrive ${(heldMs / 1000).toFixed(1)} s late, in bursts`;
  return offer ? `${held}. Try ${TRANSPORTS[offer]}.` : `${held}.`;
}
