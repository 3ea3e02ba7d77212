// A script whose output the replicas make differently: each word has the salt of its replica and its index before it, as
// SALT:INDEX|word. Only the salts are learned from what is received, and what a reader has seen must never change.
import { Script } from './script.mjs';

const MARK = /([\w-]{1,32}):(\d+)\|/y;

/** The number of takeovers before an epoch, at least: each takes a higher number in the upper half than it has seen. */
const takeoversBefore = (epoch) => Math.floor(epoch / 0x10000);

export class SaltedScript extends Script {
  #salts = [];
  #epochs = new Set();

  delta(seq) {
    const plain = super.delta(seq);
    const salt = this.#salts[seq];
    if (plain?.wordAt === undefined || salt === undefined) return plain;
    const { content, index, wordAt } = plain;
    return { ...plain, content: `${content.slice(0, wordAt)}${salt}:${index}|${content.slice(wordAt)}` };
  }

  /**
   * Learns the salts of a delta that covers `first` to its seq. Returns false if it is not the output of this script, if
   * it differs from what was learned before, or if its salt changes more often than its log was taken over.
   */
  learn({ kind, text, content, seq, epoch = 0 }, first) {
    const read = (kind ?? 'text') === 'text' ? text : content;
    let at = 0;
    for (let each = first; each <= seq; each++) {
      at = this.#consume(each, read ?? '', at);
      if (at === undefined) return false;
    }
    return at === (read ?? '').length && this.#mayChange(seq, epoch);
  }

  /** Two replicas that take over at the same time may both see the same number. The later one continues the other. */
  #mayChange(seq, epoch) {
    if (epoch > 0) this.#epochs.add(epoch);
    const seen = [...this.#epochs].filter((each) => each <= epoch).length;
    return this.#changesUntil(seq) <= Math.max(takeoversBefore(epoch), seen);
  }

  /**
   * How often the salt changes up to event `seq`. Not behind it: a second reader may be at a replica that was stopped and
   * does not know of the takeovers that the first one has seen.
   */
  #changesUntil(seq) {
    const salts = this.#salts.slice(0, seq + 1).filter((salt) => salt !== undefined);
    return salts.filter((salt, i) => i > 0 && salt !== salts[i - 1]).length;
  }

  /** The same for a snapshot of everything up to `seq`, which replaces what was learned. */
  relearn(parts, seq, epoch) {
    this.#salts = [];
    const places = parts.map((choice) => choice.map(() => 0));
    for (let each = 2; each <= Math.min(seq, this.lastSeq - 1); each++) {
      const { choice, part } = super.delta(each);
      const at = this.#consume(each, parts[choice]?.[part]?.content ?? '', places[choice]?.[part] ?? 0);
      if (at === undefined) return false;
      if (places[choice]?.[part] !== undefined) places[choice][part] = at;
    }
    return this.#mayChange(seq, epoch);
  }

  /** Reads event `seq` from `text` at `at`. Returns where it ends; undefined if something else is there. */
  #consume(seq, text, at) {
    const plain = super.delta(seq);
    if (plain === undefined) return undefined;
    const { content, index, wordAt } = plain;
    if (wordAt === undefined) return at;
    if (!text.startsWith(content.slice(0, wordAt), at)) return undefined;
    MARK.lastIndex = at + wordAt;
    const [mark, salt, written] = MARK.exec(text) ?? [];
    if (mark === undefined || Number(written) !== index) return undefined;
    const rest = content.slice(wordAt);
    if (!text.startsWith(rest, at + wordAt + mark.length)) return undefined;
    if (this.#salts[seq] !== undefined && this.#salts[seq] !== salt) return undefined;
    this.#salts[seq] = salt;
    return at + content.length + mark.length;
  }
}
