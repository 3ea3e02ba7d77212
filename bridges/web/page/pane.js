// One reader of the answer, with its numbers, its badge and its buttons.

import { attach } from '/runnel.js';
import {
  describeBuffered, describeProgress, describeWait, explain, formatBytes, formatMs, formatRate, plural, TRANSPORTS,
} from '/page/format.js';
import { GrowingText } from '/page/growing_text.js';

const NAMES = Object.keys(TRANSPORTS);
const WIRES = { sse: 'one response, held open', websocket: 'one socket, both ways', poll: 'a request for each batch' };
export const RUNNING = new Set(['connecting', 'streaming', 'reconnecting']);

export class Pane {
  #root;
  #text;
  #answer;
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
    this.#text = new GrowingText(this.#root.querySelector('[data-text]'));
    this.#button('drop').addEventListener('click', () => this.#answer?.drop());
    this.#button('switch').addEventListener('click', () => this.#switch());
    this.paint();
    document.getElementById('panes').append(this.#root);
  }

  // The buttons of the panes have the same words: whose they are is told with them.
  #label() {
    const title = this.#root.querySelector('h3');
    title.textContent = TRANSPORTS[this.#name];
    title.id = `pane-${this.#name}`;
    this.#root.setAttribute('aria-labelledby', title.id);
    this.#root.querySelector('[data-text]').setAttribute('aria-label', `Answer read by ${title.textContent}`);
    for (const button of this.#root.querySelectorAll('button')) button.setAttribute('aria-describedby', title.id);
  }

  /** Reads a generation from its beginning. Resolves with the verified result, or undefined. */
  async read(id, startedAt) {
    this.#text.replace('');
    this.#waiting = this.#buffered = null;
    const answer = (this.#answer = attach(id, {
      ...this.#urls, transport: this.#name, startedAt, onStatus: (status) => this.#changed(status), onNotice: (notice) => this.#notice(notice),
    }));
    this.paint();
    await this.#text.show(answer);
    return answer.result.catch(() => undefined);
  }

  #changed(status) {
    if (status === 'streaming') this.#waiting = null;
    this.paint();
  }

  #notice(notice) {
    if (notice.type === 'waiting') this.#waiting = notice;
    if (notice.type === 'buffered') this.#buffered = notice;
    this.paint();
  }

  forget() {
    this.#answer?.close();
  }

  paint() {
    const status = this.#answer?.status ?? 'idle';
    const transport = this.#answer?.transport ?? this.#name;
    const running = RUNNING.has(status);
    this.#root.dataset.transport = transport;
    this.#root.dataset.state = status;
    this.#root.querySelector('[data-badge]').dataset.state = status;
    this.#write('[data-badge]', status);
    this.#write('[data-wire]', transport === this.#name ? WIRES[transport] : `now over ${TRANSPORTS[transport]}`);
    this.#button('drop').disabled = !running;
    this.#button('switch').disabled = !running;
    this.#button('switch').classList.toggle('offered', running && this.#buffered?.transport === transport);
    this.#write('[data-action="switch"]', `Switch to ${TRANSPORTS[this.#next(transport)]}`);
    if (this.#answer) this.#paintNumbers(status);
  }

  #paintNumbers(status) {
    const { ttftMs, tokensPerSecond, bytesReceived, reconnects } = this.#answer.stats;
    this.#write('[data-number="ttft"]', formatMs(ttftMs));
    this.#write('[data-number="rate"]', formatRate(tokensPerSecond));
    this.#write('[data-number="bytes"]', formatBytes(bytesReceived));
    this.#write('[data-number="reconnects"]', String(reconnects));
    this.#write('[data-remark]', this.#remark(status));
  }

  #remark(status) {
    const { lastError, stats } = this.#answer;
    if (status === 'failed') return explain(lastError);
    const told = [];
    // A reason only while it matters: what was mended is told by the numbers.
    if (status === 'reconnecting') told.push(this.#waiting ? describeWait(this.#waiting) : lastError.message);
    else if (RUNNING.has(status) && stats.ttftMs === null) told.push(describeProgress(this.#answer.progress));
    if (this.#buffered?.transport === this.#answer.transport) told.push(describeBuffered(this.#buffered));
    if (stats.repeatsDropped) told.push(`${plural(stats.repeatsDropped, 'repeat')} dropped`);
    if (stats.gaps) told.push(`${plural(stats.gaps, 'gap')} mended`);
    return told.join(', ');
  }

  #next(transport) {
    return NAMES[(NAMES.indexOf(transport) + 1) % NAMES.length];
  }

  #switch() {
    this.#waiting = null;
    this.#answer?.switchTransport(this.#next(this.#answer.transport));
    this.paint();
  }

  // Only what has changed, so that a selection in the page survives the next tick.
  #write(selector, text) {
    const element = this.#root.querySelector(selector);
    if (element.textContent !== text) element.textContent = text;
  }

  #button(action) {
    return this.#root.querySelector(`[data-action="${action}"]`);
  }
}
