// The page: a chat that starts one generation, and three panes that read the same log over different transports.
import { attach, crc32, stream } from '/runnel.js';

const TRANSPORTS = { sse: 'SSE', websocket: 'WebSocket', poll: 'Polling' };
const NAMES = Object.keys(TRANSPORTS);
const WIRES = { sse: 'one response, held open', websocket: 'one socket, both ways', poll: 'a request for each batch' };
const RUNNING = new Set(['connecting', 'streaming', 'reconnecting']);
const NUMBERS_EVERY_MS = 200;

const byId = (id) => document.getElementById(id);

function make(tag, className, text = '') {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

// ---- text

/** Text that grows at its end. It is painted once a frame, however many tokens a frame brings. */
class GrowingText {
  #element;
  #scroller;
  #node = document.createTextNode('');
  #pending = '';
  #frame = 0;

  constructor(element, scroller = element) {
    this.#element = element;
    this.#scroller = scroller;
    element.replaceChildren(this.#node);
  }

  append(text) {
    this.#pending += text;
    this.#frame ||= requestAnimationFrame(() => this.flush());
  }

  replace(text) {
    this.#pending = '';
    this.#node.data = text;
  }

  flush() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    if (this.#pending === '') return;
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    // Whoever has scrolled up to read must not be pulled down.
    const following = scrollHeight - scrollTop - clientHeight < 40;
    this.#node.appendData(this.#pending);
    this.#pending = '';
    if (following) this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  /** Shows all of an answer as it comes; resolves when it ended, however it ended. */
  async show(answer) {
    try {
      for await (const event of answer) {
        if (event.type === 'delta') this.append(event.text);
        // Not answer.text(): that is already ahead of this event.
        else if (event.type === 'gap') this.replace(event.snapshot?.choices[0]?.text ?? '');
      }
    } catch {
      // Its owner tells why, from answer.result.
    }
    this.flush();
  }
}

// ---- numbers

const formatMs = (ms) => (ms === null ? '–' : ms < 10_000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);
const formatRate = (rate) => (rate === null ? '–' : rate < 100 ? rate.toFixed(1) : String(Math.round(rate)));
const formatBytes = (bytes) => (bytes < 1000 ? `${bytes} B` : `${(bytes / 1000).toFixed(1)} kB`);
const plural = (count, noun) => `${count} ${noun}${count === 1 ? '' : 's'}`;

function explain(error) {
  return `${error.code}: ${error.message}`;
}

// ---- a pane

class Pane {
  #root;
  #text;
  #answer;
  #name;
  #urls;

  constructor(name, urls) {
    this.#name = name;
    this.#urls = urls;
    this.#root = byId('pane-template').content.firstElementChild.cloneNode(true);
    this.#root.dataset.pane = name;
    this.#root.querySelector('h3').textContent = TRANSPORTS[name];
    this.#root.querySelector('[data-text]').setAttribute('aria-label', `Answer over ${TRANSPORTS[name]}`);
    this.#text = new GrowingText(this.#root.querySelector('[data-text]'));
    this.#button('drop').addEventListener('click', () => this.#answer?.drop());
    this.#button('switch').addEventListener('click', () => this.#switch());
    this.paint();
    byId('panes').append(this.#root);
  }

  /** Reads a generation from its beginning. Resolves with the verified result, or undefined. */
  async read(id, startedAt) {
    this.#text.replace('');
    const answer = (this.#answer = attach(id, {
      ...this.#urls, transport: this.#name, startedAt, onStatus: () => this.paint(),
    }));
    this.paint();
    await this.#text.show(answer);
    return answer.result.catch(() => undefined);
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
    if (status === 'reconnecting') told.push(lastError.message);
    if (stats.repeatsDropped) told.push(`${plural(stats.repeatsDropped, 'repeat')} dropped`);
    if (stats.gaps) told.push(`${plural(stats.gaps, 'gap')} mended`);
    return told.join(', ');
  }

  #next(transport) {
    return NAMES[(NAMES.indexOf(transport) + 1) % NAMES.length];
  }

  #switch() {
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

// ---- models

let models = [];

async function loadModels() {
  const response = await fetch('/v1/models', { headers: { accept: 'application/json' } });
  if (!response.ok) throw new Error(`the models could not be listed: status ${response.status}`);
  models = (await response.json()).data;
  const select = byId('model');
  select.replaceChildren(...models.map(({ id }) => new Option(id, id)));
  select.disabled = models.length === 0;
  byId('send').disabled = models.length === 0;
  const onlyScripted = models.length > 0 && models.every(({ engine }) => engine === 'scripted');
  notice(models.length === 0 ? 'The service has no model.' : onlyScripted
    ? 'No language model is loaded. The only engine is the scripted one: it plays the same words whatever you ask.' : '');
  showEngine();
}

/** The page is often open before the service is ready. */
async function loadModelsInTheEnd() {
  for (;;) {
    try {
      return await loadModels();
    } catch (error) {
      notice(`${error.message}. Trying again…`);
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }
}

function isScripted() {
  return models.find(({ id }) => id === byId('model').value)?.engine === 'scripted';
}

function showEngine() {
  byId('engine-mark').hidden = !isScripted();
  for (const field of document.querySelectorAll('[data-scripted]')) field.hidden = !isScripted();
}

function notice(text) {
  byId('notice').textContent = text;
  byId('notice').hidden = text === '';
}

// ---- the chat

const turns = [];
let panes = [];
let urls = {};
let running = null;

function makeRequest() {
  const number = (id) => (byId(id).value === '' ? undefined : Number(byId(id).value));
  const request = {
    model: byId('model').value, messages: [...turns], max_tokens: number('max-tokens'),
    temperature: number('temperature'), seed: number('seed'),
  };
  if (isScripted() && number('pace')) request.metadata = { 'scripted.tokens_per_second': String(number('pace')) };
  return request;
}

async function ask(question) {
  byId('welcome')?.remove();
  for (const pane of panes) pane.forget();
  turns.push({ role: 'user', content: question });
  const log = byId('log');
  log.append(make('p', 'turn question', question));
  const reply = make('div', 'turn reply');
  const body = reply.appendChild(make('div', 'reply-text'));
  const meta = reply.appendChild(make('p', 'reply-meta', 'waiting for the first token'));
  log.append(reply);
  log.scrollTop = log.scrollHeight;
  await follow(body, meta);
}

async function follow(body, meta) {
  const log = byId('log');
  const startedAt = performance.now();
  const answer = (running = stream(makeRequest(), { ...urls, startedAt }));
  setRunning(true);
  agree('none', '');
  const ticking = setInterval(() => {
    for (const pane of panes) pane.paint();
    if (RUNNING.has(answer.status) && answer.stats.ttftMs !== null) meta.textContent = describe(answer);
  }, NUMBERS_EVERY_MS);
  const read = answer.started.then((id) => Promise.all(panes.map((pane) => pane.read(id, startedAt))), () => []);
  await new GrowingText(body, log).show(answer);
  await answer.result.then(
    () => remember(answer.text()), (error) => failed(error, answer, meta));
  if (answer.status === 'verified') meta.textContent = describe(answer, (await answer.result).finishReasons[0]);
  meta.dataset.state = answer.status;
  log.scrollTop = log.scrollHeight;
  setRunning(false);
  const results = await read;
  clearInterval(ticking);
  for (const pane of panes) pane.paint();
  if (running === answer) compare(results);
}

function describe({ stats, status }, finishReason) {
  const told = [plural(stats.tokens, 'token')];
  if (stats.tokensPerSecond !== null) told.push(`${formatRate(stats.tokensPerSecond)} tokens/s`);
  if (stats.ttftMs !== null) told.push(`first after ${formatMs(stats.ttftMs)}`);
  if (stats.reconnects) told.push(plural(stats.reconnects, 'reconnect'));
  if (finishReason === 'cancelled') told.unshift('stopped');
  if (finishReason === 'length') told.push('cut at the most tokens');
  return [status, ...told].join(' · ');
}

function remember(text) {
  if (text) turns.push({ role: 'assistant', content: text });
  else turns.pop();
}

function failed(error, answer, meta) {
  meta.textContent = `${answer.status} · ${explain(error)}`;
  remember(answer.text());
}

function setRunning(yes) {
  byId('send').disabled = yes;
  byId('stop').disabled = !yes;
  byId('log').setAttribute('aria-busy', String(yes));
  byId('announcer').textContent = yes ? 'The answer is being written.' : `The answer has ended: ${running.status}.`;
}

// ---- agreement

/** The readers each verified their own text; this says that they are one text. */
function compare(results) {
  const whole = results.length > 0 && results.every(Boolean);
  if (!whole) return agree('no', 'Not every reader has the whole answer.');
  const [{ text, events }] = results;
  if (results.some((result) => result.text !== text)) return agree('no', 'The readers have different texts.');
  const bytes = new TextEncoder().encode(text);
  const crc = crc32(bytes).toString(16).padStart(8, '0');
  return agree('yes', `All three agree: ${plural(events, 'event')}, ${plural(bytes.length, 'byte')}, CRC-32 ${crc}`);
}

function agree(state, text) {
  byId('agreement').dataset.agreement = state;
  byId('agreement').textContent = text;
}

// ---- the page

function submit() {
  const question = byId('question').value.trim();
  if (!question || byId('send').disabled) return;
  byId('question').value = '';
  ask(question);
}

function stop() {
  if (byId('stop').disabled) return;
  byId('stop').disabled = true;
  running.cancel().catch((error) => {
    notice(`The answer could not be stopped: ${explain(error)}`);
    byId('stop').disabled = false;
  });
}

function listen() {
  byId('composer').addEventListener('submit', (event) => {
    event.preventDefault();
    submit();
  });
  byId('question').addEventListener('keydown', (event) => {
    // While an input method composes, Enter belongs to it.
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  });
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') stop();
  });
  byId('stop').addEventListener('click', stop);
  byId('model').addEventListener('change', showEngine);
}

async function loadConfig() {
  try {
    const { ws_url: wsUrl } = await (await fetch('/config.json')).json();
    return { baseUrl: location.origin, wsUrl: wsUrl ?? undefined };
  } catch {
    return { baseUrl: location.origin };
  }
}

listen();
urls = await loadConfig();
panes = NAMES.map((name) => new Pane(name, urls));
await loadModelsInTheEnd();
