// Server-sent events.
import { alreadyEnded, parseEvent } from './events.js';
import { HttpConnection } from './http_connection.js';
import { SseParser } from './sse_parser.js';

export class SseConnection extends HttpConnection {
  async *read() {
    const { view } = this;
    const response = view.id ? await this.#resume() : await this.start('text/event-stream');
    if (response.status === 204) throw alreadyEnded();
    this.expect(response, 'text/event-stream');
    view.opened();
    const parser = new SseParser((comment) => this.#comment(comment));
    for await (const chunk of this.chunks(response)) {
      for (const message of parser.push(chunk)) {
        if (parser.retryMs !== undefined) view.retryMs = parser.retryMs;
        yield parseEvent(message.data);
      }
    }
  }

  // `: hb`, `: hb {"stage":...}` or `: goaway {"reason":...}`. A malformed comment still shows that the server lives.
  #comment(comment) {
    const [, name, json] = /^ ?(hb|goaway) (\{.{1,1000}\})$/.exec(comment) ?? [];
    let state = {};
    try {
      if (json !== undefined) state = JSON.parse(json);
    } catch {
      return this.view.heartbeat({});
    }
    return name === 'goaway' ? this.view.leaveSoon(state) : this.view.heartbeat(state);
  }

  #resume() {
    const { id, after, position } = this.view;
    const headers = { accept: 'text/event-stream' };
    if (after > 0) headers['last-event-id'] = `${id}:${position}`;
    return this.get('/events', headers);
  }
}
