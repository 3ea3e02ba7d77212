// Reading by long polling.
import { pause } from './clock.js';
import { broken } from './errors.js';
import { alreadyEnded, checkEvent } from './events.js';
import { HttpConnection } from './http_connection.js';

export class PollConnection extends HttpConnection {
  /** Events come in batches by its nature. */
  batches = true;

  async *read() {
    const { link } = this;
    if (!link.id) link.learnId((await this.json(await this.start('application/json'))).id);
    for (;;) {
      const askedAt = link.clock.now();
      const { after } = link;
      const path = `?after=${after}&wait=${link.pollWaitSeconds}`;
      const state = await this.json(await this.get(path, { accept: 'application/json' }));
      if (!Array.isArray(state.events)) throw broken('bad_body', 'no events in the answer to a poll');
      link.opened();
      link.heartbeat(state);
      for (const event of state.events) yield checkEvent(event);
      if (link.after === after && (state.status === 'done' || state.status === 'failed')) throw alreadyEnded();
      // A server that does not hold an empty poll back must not be asked without end.
      const tookMs = link.clock.now() - askedAt;
      if (state.events.length === 0 && tookMs < link.pollMinMs) {
        await pause(link.clock, link.pollMinMs - tookMs, link.signal);
      }
    }
  }
}
