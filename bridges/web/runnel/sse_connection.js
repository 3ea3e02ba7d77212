// Reading over SSE.
import { alreadyEnded, parseEvent } from './events.js';
import { HttpConnection } from './http_connection.js';
import { SseParser } from './sse_parser.js';

export class SseConnection extends HttpConnection {
  async *read() {
    const { link } = this;
    const response = link.id ? await this.#resume() : await this.start('text/event-stream');
    if (response.status === 204) throw alreadyEnded();
    this.expect(response, 'text/event-stream');
    link.opened();
    const parser = new SseParser((comment) => this.#heartbeat(comment));
    for await (const chunk of this.chunks(response)) {
      for (const message of parser.push(chunk)) {
        if (parser.retryMs !== undefined) link.retryMs = parser.retryMs;
        const event = parseEvent(message.data);
        if (event.type === 'goaway') link.leaveSoon(event);
        else yield event;
      }
    }
  }

  // `: hb`, or `: hb {"stage":...}`. A comment that cannot be read is as good a sign of life.
  #heartbeat(comment) {
    const [, json] = /^ ?hb(?: (\{.{1,1000}\}))?$/.exec(comment) ?? [];
    if (json === undefined) return this.link.heartbeat({});
    try {
      return this.link.heartbeat(JSON.parse(json));
    } catch {
      return this.link.heartbeat({});
    }
  }

  #resume() {
    const { id, after } = this.link;
    const headers = { accept: 'text/event-stream' };
    if (after > 0) headers['last-event-id'] = `${id}:${after}`;
    return this.get('/events', headers);
  }
}
