// The page: a chat that starts one generation, and three panes that read the same log over different transports.
import { crc32, stream } from '/runnel.js';
import {
  describeProgress, describeWait, explain, formatMs, formatRate, plural, TRANSPORTS,
} from '/page/format.js';
import { GrowingText } from '/page/growing_text.js';
import { Pane, RUNNING } from '/page/pane.js';

const NUMBERS_EVERY_MS = 200;

const byId = (id) => document.getElementById(id);

function make(tag, className, text = '') {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
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
  const turnsBefore = turns.length;
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
  const error = await follow(body, meta);
  if (error?.retryable) offerAgain(reply, question, turnsBefore);
}

/** A failure that may not come twice. What it said is not part of the next conversation. */
function offerAgain(reply, question, turnsBefore) {
  const button = reply.appendChild(make('button', 'again', 'Ask again'));
  button.type = 'button';
  button.addEventListener('click', () => {
    if (byId('send').disabled) return;
    button.remove();
    turns.length = turnsBefore;
    byId('question').focus();
    ask(question);
  });
}

/** Shows one answer until it has ended. Returns the error if it failed. */
async function follow(body, meta) {
  const log = byId('log');
  const startedAt = performance.now();
  const answer = (running = stream(makeRequest(), {
    ...urls, startedAt, onBuffered: 'switch',
    onNotice: ({ type, ...notice }) => {
      if (type === 'progress') meta.textContent = describeProgress(notice);
      if (type === 'waiting') meta.textContent = `reconnecting · ${describeWait(notice)}`;
    },
  }));
  setRunning(true);
  agree('none', '');
  const ticking = setInterval(() => {
    for (const pane of panes) pane.paint();
    if (answer.status === 'streaming' && answer.stats.ttftMs !== null) meta.textContent = describe(answer);
  }, NUMBERS_EVERY_MS);
  const read = answer.started.then((id) => Promise.all(panes.map((pane) => pane.read(id, startedAt))), () => []);
  await new GrowingText(body, log).show(answer);
  const error = await answer.result.then(() => remember(answer.text()), (failure) => failed(failure, answer, meta));
  if (answer.status === 'verified') meta.textContent = describe(answer, (await answer.result).finishReasons[0]);
  meta.dataset.state = answer.status;
  log.scrollTop = log.scrollHeight;
  setRunning(false);
  const results = await read;
  clearInterval(ticking);
  for (const pane of panes) pane.paint();
  if (running === answer) compare(results);
  return error;
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
  return error;
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
  return agree('yes', `All three agree: ${plural(events, 'event')}, ${plural(bytes.length, 'byte')}, CRC-32\u00a0${crc}`);
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
  // A disabled button would take the focus with it.
  if (document.activeElement === byId('stop')) byId('question').focus();
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
panes = Object.keys(TRANSPORTS).map((name) => new Pane(name, urls));
await loadModelsInTheEnd();
