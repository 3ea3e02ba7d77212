// Counters of replicas over all their runs.

const SUMMED = /^((?:runnel_takeovers|runnel_log_(?:fenced|unprotected_seconds|unprotected_generations|lost_tail|lost_leases|refilled_events))_total(?:\{[^}]*\})?) (\S+)$/;
const TIMEOUT_MS = 300;

/** The counters of interest in a text of metrics, by series. */
export function parseMetrics(text) {
  const counters = new Map();
  for (const line of text.split('\n')) {
    const counter = SUMMED.exec(line);
    if (counter !== null) counters.set(counter[1], Number(counter[2]));
  }
  return counters;
}

export class ReplicaMetrics {
  /** By series. */
  sums = new Map();
  #last = new Map();

  constructor(replicas) {
    this.replicas = replicas;
  }

  /** Takes what a replica says now, if it responds; called before it is killed as well, so that little is missed. */
  async sample(replica) {
    const run = replica.run;
    let text;
    try {
      text = await (await fetch(`http://${replica.admin}/metrics`, { signal: AbortSignal.timeout(TIMEOUT_MS) })).text();
    } catch {
      return;
    }
    const before = this.#last.get(replica.index);
    const last = before?.run === run ? before.counters : new Map();
    const counters = parseMetrics(text);
    for (const [series, value] of counters) {
      const more = value - (last.get(series) ?? 0);
      if (more !== 0) this.sums.set(series, (this.sums.get(series) ?? 0) + more);
    }
    this.#last.set(replica.index, { run, counters });
  }

  /** Samples all replicas again and again until `stopped()`. */
  async watch(stopped) {
    while (!stopped()) {
      await Promise.all(this.replicas.map((replica) => this.sample(replica)));
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
  }

  /** A counter summed over its labels. */
  total(name) {
    return [...this.sums].filter(([series]) => series.startsWith(name)).reduce((sum, [, value]) => sum + value, 0);
  }
}
