// Long polling.
import { pause } from './clock.js';
import { broken } from './errors.js';
import { alreadyEnded, checkEvent } from './events.js';
import { HttpConnection } from './http_connection.js';

export class PollConnection extends HttpConnection {
  /** Polling delivers events in batches by design, so batches are not a sign of buffering. */
  batches = true;

  async *read() {
    const { view } = this;
    if (!view.id) view.learnId((await this.json(await this.start('application/json'))).id);
    for (;;) {
      const askedAt = view.clock.now();
      const { position } = view;
      const path = `?after=${position}&wait=${view.pollWaitSeconds}`;
      const state = await this.json(await this.get(path, { accept: 'application/json' }));
      if (!Array.isArray(state.events)) throw broken('bad_body', 'the response to a poll has no events');
      view.opened();
      view.heartbeat(state);
      if (state.parts !== undefined) yield { type: 'attached', parts: state.parts };
      for (const event of state.events) yield checkEvent(event);
      if (view.position === position && (state.status === 'done' || state.status === 'failed')) throw alreadyEnded();
      // A server that responds to an empty poll without waiting must not be asked in a tight loop.
      const tookMs = view.clock.now() - askedAt;
      if (state.events.length === 0 && tookMs < view.pollMinMs) {
        await pause(view.clock, view.pollMinMs - tookMs, view.signal);
      }
    }
  }
}
