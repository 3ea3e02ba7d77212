// Counters of replicas over all their runs, and what they announce as not protected.

const SUMMED = /^(runnel_takeovers_total|runnel_log_fenced_total|runnel_log_unprotected_seconds_total|runnel_log_lost_tail_total|runnel_log_refilled_events_total)(\{[^}]*\})? (\S+)$/;
const UNPROTECTED = /^runnel_log_unprotected_generations(?:\{[^}]*\})? (\S+)$/;
const SLACK_MS = 300;

/** The counters of interest in a text of metrics, and the number of generations that are not protected now. */
export function parseMetrics(text) {
  const counters = new Map();
  let unprotected = 0;
  for (const line of text.split('\n')) {
    const counter = SUMMED.exec(line);
    if (counter !== null) counters.set(`${counter[1]}${counter[2] ?? ''}`, Number(counter[3]));
    const gauge = UNPROTECTED.exec(line);
    if (gauge !== null) unprotected += Number(gauge[1]);
  }
  return { counters, unprotected };
}

export class ReplicaMetrics {
  /** By series. */
  sums = new Map();
  #last = new Map();

  /** `faults`: gets what the replicas announce, as unprotected periods. */
  constructor(replicas, faults) {
    Object.assign(this, { replicas, faults });
  }

  /** Takes what a replica says now, if it responds; called before it is killed as well, so that little is missed. */
  async sample(replica) {
    const run = replica.run;
    let text;
    try {
      text = await (await fetch(`http://${replica.admin}/metrics`, { signal: AbortSignal.timeout(SLACK_MS) })).text();
    } catch {
      return;
    }
    const now = performance.now();
    const before = this.#last.get(replica.index);
    const last = before?.run === run ? before : { counters: new Map(), at: now - SLACK_MS };
    const { counters, unprotected } = parseMetrics(text);
    for (const [series, value] of counters) {
      const more = value - (last.counters.get(series) ?? 0);
      this.sums.set(series, (this.sums.get(series) ?? 0) + more);
      if (series.startsWith('runnel_log_unprotected_seconds_total') && more > 0) this.#announce(replica, last.at, now);
    }
    if (unprotected > 0) this.#announce(replica, last.at, now + SLACK_MS);
    this.#last.set(replica.index, { run, counters, at: now });
  }

  /** Samples all replicas again and again until `stopped()`. */
  async watch(stopped) {
    while (!stopped()) {
      await Promise.all(this.replicas.map((replica) => this.sample(replica)));
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  /** A series summed over its labels. */
  total(name) {
    return [...this.sums].filter(([series]) => series.startsWith(name)).reduce((sum, [, value]) => sum + value, 0);
  }

  #announce({ index }, from, to) {
    const fault = this.faults.begin('announced unprotected', { store: true, replica: index, from: from - SLACK_MS });
    this.faults.end(fault, to);
  }
}
