// The page: a chat that starts one generation, and three panes that read the same log over different transports.
import { crc32, stream } from './runnel.js';
import { describeProgress, describeWait, explain, formatMs, formatRate, plural, TRANSPORTS } from './page/format.js';
import { isScripted, loadModelsWithRetry, notice, showEngine } from './page/models.js';
import { Pane } from './page/pane.js';
import { GenerationTimes } from './page/timeline.js';
import { Turn } from './page/turn.js';

const NUMBERS_EVERY_MS = 200;

const byId = (id) => document.getElementById(id);

// ---- the chat

const messages = [];
let panes = [];
let urls = {};
let running = null;

function makeRequest() {
  const number = (id) => (byId(id).value === '' ? undefined : Number(byId(id).value));
  const request = {
    model: byId('model').value, messages: [...messages], max_tokens: number('max-tokens'),
    temperature: number('temperature'), seed: number('seed'),
  };
  if (isScripted() && number('pace')) request.metadata = { 'scripted.tokens_per_second': String(number('pace')) };
  return request;
}

async function ask(question) {
  const messagesBefore = messages.length;
  byId('welcome')?.remove();
  for (const pane of panes) pane.forget();
  messages.push({ role: 'user', content: question });
  const turn = new Turn(byId('log'), question);
  const error = await follow(turn);
  if (!error?.retryable) return;
  turn.offerAgain(() => {
    if (byId('send').disabled) return false;
    // The text of a failed response is not part of the conversation.
    messages.length = messagesBefore;
    byId('question').focus();
    ask(question);
    return true;
  });
}

/** Shows one response until it has ended. Returns the error if it failed. */
async function follow(turn) {
  const startedAt = performance.now();
  const times = new GenerationTimes();
  const response = (running = stream(makeRequest(), {
    ...urls, startedAt, onBuffered: 'switch',
    onNotice: ({ type, ...details }) => {
      if (type === 'progress') turn.describe(describeProgress(details));
      if (type === 'waiting') turn.describe(`reconnecting · ${describeWait(details)}`);
    },
  }));
  setRunning(true);
  agree('none', '');
  const ticking = setInterval(() => {
    for (const pane of panes) pane.paint();
    if (response.status === 'streaming' && response.stats.ttftMs !== null) turn.describe(describe(response));
  }, NUMBERS_EVERY_MS);
  const readAll = (id) => Promise.all(panes.map((pane) => pane.read(id, startedAt, times)));
  const read = response.started.then(readAll, () => []);
  await turn.show(response, (event) => times.observe(event, performance.now() - startedAt));
  const error = await finish(turn, response);
  setRunning(false);
  const results = await read;
  clearInterval(ticking);
  for (const pane of panes) pane.paint();
  if (running === response) compare(results);
  return error;
}

async function finish(turn, response) {
  const outcome = await response.result.catch((error) => error);
  const text = response.text();
  if (text) messages.push({ role: 'assistant', content: text });
  else messages.pop();
  const failed = outcome instanceof Error;
  const line = failed ? `${response.status} · ${explain(outcome)}` : describe(response, outcome.finishReasons[0]);
  turn.describe(line, response.status);
  byId('log').scrollTop = byId('log').scrollHeight;
  return failed ? outcome : undefined;
}

function describe({ stats, status }, finishReason) {
  const facts = [plural(stats.tokens, 'token')];
  if (stats.tokensPerSecond !== null) facts.push(`${formatRate(stats.tokensPerSecond)} tokens/s`);
  if (stats.ttftMs !== null) facts.push(`first after ${formatMs(stats.ttftMs)}`);
  if (stats.reconnects) facts.push(plural(stats.reconnects, 'reconnect'));
  if (finishReason === 'cancelled') facts.unshift('stopped');
  if (finishReason === 'tool_calls') facts.push('called tools');
  if (finishReason === 'length') facts.push('stopped at the token limit');
  return [status, ...facts].join(' · ');
}

function setRunning(yes) {
  byId('send').disabled = yes;
  byId('stop').disabled = !yes;
  byId('log').setAttribute('aria-busy', String(yes));
  const ended = `The response has ended: ${running.status}.`;
  byId('announcer').textContent = yes ? 'The response is being written.' : ended;
}

// ---- agreement

/** Each reader has verified its own text; this checks that all have the same text. */
function compare(results) {
  const complete = results.length > 0 && results.every(Boolean);
  if (!complete) return agree('no', 'Not every reader has the complete response.');
  const [{ text, events, parts }] = results;
  const outputs = results.map((result) => JSON.stringify([result.text, result.parts]));
  if (outputs.some((output) => output !== outputs[0])) return agree('no', 'The readers have different texts.');
  const bytes = new TextEncoder().encode(text);
  const crc = crc32(bytes).toString(16).padStart(8, '0');
  const others = parts.length > 1 ? `, ${plural(parts.length, 'part')}` : '';
  const size = `${plural(events, 'event')}${others}, ${plural(bytes.length, 'byte')} of text`;
  return agree('yes', `All three agree: ${size}, CRC\u201132\u00a0${crc}`);
}

function agree(state, text) {
  byId('agreement').dataset.agreement = state;
  byId('agreement').textContent = text;
}

// ---- the controls

function submit() {
  const question = byId('question').value.trim();
  if (!question || byId('send').disabled) return;
  byId('question').value = '';
  ask(question);
}

function stop() {
  if (byId('stop').disabled) return;
  // Disabling the button would lose the focus.
  if (document.activeElement === byId('stop')) byId('question').focus();
  byId('stop').disabled = true;
  for (const pane of panes) pane.mark('stop');
  running.cancel().catch((error) => {
    notice(`The response could not be stopped: ${explain(error)}`);
    byId('stop').disabled = false;
  });
}

function escape() {
  const settings = byId('settings');
  if (!settings.open) return stop();
  if (settings.contains(document.activeElement)) settings.querySelector('summary').focus();
  settings.open = false;
  return undefined;
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
    if (event.key === 'Escape' && !event.isComposing) escape();
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
await loadModelsWithRetry();
