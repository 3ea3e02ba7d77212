// One reader of the response: its text, numbers, badge, timeline and buttons.

import { attach } from '../runnel.js';
import {
  describeBuffered, describeProgress, describeWait, explain, formatBytes, formatMs, formatRate, plural, TRANSPORTS,
} from './format.js';
import { GrowingText, PlainText } from './growing_text.js';
import { Timeline } from './timeline.js';
import { TimelineStrip } from './timeline_strip.js';

const NAMES = Object.keys(TRANSPORTS);
const CONNECTIONS = {
  sse: 'one response, held open', websocket: 'one socket, both ways', poll: 'one request per batch',
};
const RUNNING = new Set(['connecting', 'streaming', 'reconnecting']);

export class Pane {
  #root;
  #text;
  #strip;
  #timeline = null;
  #startedAt = 0;
  #response;
  #name;
  #urls;
  #waiting = null;
  #buffered = null;

  constructor(name, urls) {
    this.#name = name;
    this.#urls = urls;
    this.#root = document.getElementById('pane-template').content.firstElementChild.cloneNode(true);
    this.#root.dataset.pane = name;
    this.#label();
    const text = this.#part('[data-text]');
    this.#text = new GrowingText([new PlainText(text)], text);
    this.#strip = new TimelineStrip(this.#part('[data-timeline]'), this.#part('[data-timeline-end]'));
    this.#button('drop').addEventListener('click', () => this.#drop());
    this.#button('switch').addEventListener('click', () => this.#switch());
    this.paint();
    document.getElementById('panes').append(this.#root);
  }

  // The buttons of all panes have the same words, so each is described by the title of its pane.
  #label() {
    const title = this.#part('h3');
    title.textContent = TRANSPORTS[this.#name];
    title.id = `pane-${this.#name}`;
    this.#root.setAttribute('aria-labelledby', title.id);
    this.#part('[data-text]').setAttribute('aria-label', `Response read over ${title.textContent}`);
    for (const button of this.#root.querySelectorAll('button')) button.setAttribute('aria-describedby', title.id);
  }

  /**
   * Reads a generation from its beginning. Resolves with the verified result, or undefined. `times` are the
   * GenerationTimes of the generation.
   */
  async read(id, startedAt, times) {
    this.#text.replace('');
    this.#waiting = this.#buffered = null;
    this.#startedAt = startedAt;
    const timeline = (this.#timeline = new Timeline(times));
    const response = (this.#response = attach(id, {
      ...this.#urls, transport: this.#name, startedAt,
      onStatus: (status) => this.#onStatus(status), onNotice: (notice) => this.#onNotice(notice),
    }));
    this.paint();
    await this.#text.show(response, (event) => this.#note(event));
    timeline.end(this.#now());
    this.paint();
    return response.result.catch(() => undefined);
  }

  forget() {
    this.#response?.close();
  }

  /** Marks this moment on the timeline, if there is a reader. */
  mark(kind) {
    if (!RUNNING.has(this.#response?.status)) return;
    this.#timeline.mark(kind, this.#now());
    this.paint();
  }

  paint() {
    const status = this.#response?.status ?? 'idle';
    const transport = this.#response?.transport ?? this.#name;
    const running = RUNNING.has(status);
    this.#root.dataset.transport = transport;
    this.#root.dataset.state = status;
    this.#part('[data-badge]').dataset.state = status;
    this.#write('[data-badge]', status);
    const connection = transport === this.#name ? CONNECTIONS[transport] : `now over ${TRANSPORTS[transport]}`;
    this.#write('[data-connection]', connection);
    this.#button('drop').disabled = !running;
    this.#button('switch').disabled = !running;
    this.#button('switch').classList.toggle('offered', running && this.#buffered?.transport === transport);
    this.#write('[data-action="switch"]', `Switch to ${TRANSPORTS[this.#next(transport)]}`);
    if (this.#response) this.#paintNumbers(status);
    if (this.#timeline) this.#strip.show(this.#timeline, this.#now());
  }

  #paintNumbers(status) {
    const { ttftMs, tokensPerSecond, bytesReceived, reconnects } = this.#response.stats;
    this.#write('[data-number="ttft"]', formatMs(ttftMs));
    this.#write('[data-number="rate"]', formatRate(tokensPerSecond));
    this.#write('[data-number="bytes"]', formatBytes(bytesReceived));
    this.#write('[data-number="reconnects"]', String(reconnects));
    this.#write('[data-remark]', this.#remark(status));
  }

  #remark(status) {
    const { lastError, stats } = this.#response;
    if (status === 'failed') return explain(lastError);
    const remarks = [];
    // The reason matters only until the reader is connected again.
    if (status === 'reconnecting') remarks.push(this.#waiting ? describeWait(this.#waiting) : lastError.message);
    else if (RUNNING.has(status) && stats.ttftMs === null) remarks.push(describeProgress(this.#response.progress));
    if (this.#buffered?.transport === this.#response.transport) remarks.push(describeBuffered(this.#buffered));
    if (stats.repeatsDropped) remarks.push(`${plural(stats.repeatsDropped, 'repeated event')} dropped`);
    if (stats.gaps) remarks.push(`${plural(stats.gaps, 'gap')} repaired`);
    return remarks.join(', ');
  }

  #note(event) {
    this.#timeline.add(event, this.#now());
    this.#strip.show(this.#timeline, this.#now());
  }

  #onStatus(status) {
    if (status === 'streaming') {
      this.#waiting = null;
      this.#timeline.connected(this.#now());
    }
    if (status === 'reconnecting') this.#timeline.disconnected(this.#now());
    this.paint();
  }

  #onNotice(notice) {
    if (notice.type === 'waiting') this.#waiting = notice;
    if (notice.type === 'buffered') this.#buffered = notice;
    this.paint();
  }

  #drop() {
    this.mark('drop');
    this.#response?.drop();
  }

  #switch() {
    this.#waiting = null;
    this.mark('switch');
    this.#response?.switchTransport(this.#next(this.#response.transport));
    this.paint();
  }

  #next(transport) {
    return NAMES[(NAMES.indexOf(transport) + 1) % NAMES.length];
  }

  #now() {
    return performance.now() - this.#startedAt;
  }

  // Only changes are written, so that a selection in the page survives the next tick.
  #write(selector, text) {
    const element = this.#part(selector);
    if (element.textContent !== text) element.textContent = text;
  }

  #button(action) {
    return this.#part(`[data-action="${action}"]`);
  }

  #part(selector) {
    return this.#root.querySelector(selector);
  }
}
