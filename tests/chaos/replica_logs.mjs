// What replicas announce in their logs: the periods in which their generations run unprotected. A replica writes the line
// before it shows a reader anything that is not stored, so not even SIGKILL can come between the two.
import { closeSync, openSync, readSync, statSync } from 'node:fs';

const LINE = /^(\S+Z) .*(logs are unprotected|logs are protected by the store again|serving model)/;
// Between the clock of the lines and that of the faults.
const SLACK_MS = 50;

export class ReplicaLogs {
  #state;

  /** `faults`: gets the periods. `replicas`: each with `index` and `log`, its file. */
  constructor(replicas, faults) {
    this.faults = faults;
    this.#state = replicas.map(({ index, log }) => ({ index, log, offset: 0, rest: '', period: undefined }));
  }

  /** Takes what was written since the last call. */
  read() {
    for (const state of this.#state) {
      const size = statSync(state.log).size;
      if (size === state.offset) continue;
      const bytes = Buffer.alloc(size - state.offset);
      const file = openSync(state.log, 'r');
      const count = readSync(file, bytes, 0, bytes.length, state.offset);
      closeSync(file);
      state.offset += count;
      const lines = (state.rest + bytes.toString('utf8', 0, count)).split('\n');
      state.rest = lines.pop();
      for (const line of lines) this.#take(state, line);
    }
  }

  #take(state, line) {
    const [, time, what] = LINE.exec(line) ?? [];
    if (what === undefined) return;
    const at = Date.parse(time) - performance.timeOrigin;
    // The next run of a replica that was killed ends the period too.
    if (state.period !== undefined) this.faults.end(state.period, at + SLACK_MS);
    state.period = undefined;
    if (what !== 'logs are unprotected') return;
    state.period = this.faults.begin('announced unprotected', { store: true, replica: state.index, from: at - SLACK_MS });
  }
}
