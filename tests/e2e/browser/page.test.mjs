// The page in a real browser: one generation, read over three transports, with every connection cut on the way.
//
//   RUNNEL_URL         address of the SSE bridge; default: the fake server of the unit tests
//   RUNNEL_SCREENSHOT  path of a picture to write; -dark and -phone are written beside it
//   RUNNEL_CHROMIUM    path of the browser; default: /usr/bin/chromium
import assert from 'node:assert/strict';
import test from 'node:test';
import { launch } from './browser.mjs';

const PANES = ['sse', 'websocket', 'poll'];
const NAMES = { sse: 'SSE', websocket: 'WebSocket', poll: 'Polling' };

async function serverUrl(t) {
  if (process.env.RUNNEL_URL) return process.env.RUNNEL_URL;
  const { FakeServer } = await import('../../unit/bridges/web/fake_server.mjs');
  const server = await new FakeServer().listen();
  t.after(() => server.close());
  return server.url;
}

/** Opens the page. `errors` collects console errors and exceptions. */
async function open(t, options = {}) {
  const url = await serverUrl(t);
  const browser = await launch(t);
  const context = await browser.newContext({ viewport: { width: 1360, height: 820 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  const errors = [];
  page.on('console', (message) => {
    if (message.type() !== 'error' && message.type() !== 'warning') return;
    errors.push(`${message.text()} (${message.location().url})`);
  });
  page.on('pageerror', (error) => errors.push(String(error)));
  await page.goto(url);
  await page.waitForSelector('#send:not([disabled])');
  const { data } = await (await fetch(`${url}/v1/models`)).json();
  const scripted = data.find(({ engine }) => engine === 'scripted');
  if (scripted) await page.selectOption('#model', scripted.id);
  return { page, errors, scripted: Boolean(scripted), models: data };
}

async function ask(page, question, { tokens = 100, pace = 25 } = {}) {
  await page.evaluate(() => (document.getElementById('settings').open = true));
  await page.fill('#max-tokens', String(tokens));
  if (await page.isVisible('#pace')) await page.fill('#pace', String(pace));
  await page.evaluate(() => (document.getElementById('settings').open = false));
  await page.fill('#question', question);
  await page.press('#question', 'Enter');
}

const part = (name, what) => `[data-pane="${name}"] ${what}`;
const textLength = (page, name) => page.locator(part(name, '[data-text]')).evaluate((e) => e.textContent.length);

function growsPast(page, name, length) {
  return page.waitForFunction(
    ([selector, past]) => document.querySelector(selector).textContent.length > past, [part(name, '[data-text]'), length]);
}

async function assertAllVerified(page) {
  await page.waitForSelector('#agreement:not([data-agreement="none"])');
  const remarks = await page.locator('[data-remark]').allTextContents();
  for (const name of PANES) {
    const state = await page.getAttribute(part(name, '[data-badge]'), 'data-state');
    assert.equal(state, 'verified', `${name}: ${remarks}`);
  }
  assert.equal(await page.getAttribute('#agreement', 'data-agreement'), 'yes');
  const texts = await page.locator('[data-text], .reply:last-child .reply-raw').allTextContents();
  assert.equal(texts.length, 4);
  assert.equal(new Set(texts).size, 1);
  assert.ok(texts[0].length > 0);
}

async function keepPicture(page, suffix = '') {
  const path = process.env.RUNNEL_SCREENSHOT;
  if (path) await page.screenshot({ path: path.replace(/(\.\w+)?$/, `${suffix}.png`), fullPage: suffix === '-phone' });
}

test('page: one response arrives over three transports, and each reader verifies it', async (t) => {
  const { page, errors, scripted, models } = await open(t);
  assert.equal(await page.isVisible('#engine-mark'), scripted);
  assert.equal(await page.isVisible('#notice'), models.every(({ engine }) => engine === 'scripted'));
  await ask(page, 'Why do streams run downhill?');
  for (const name of PANES) await growsPast(page, name, 20);
  await assertAllVerified(page);
  for (const name of PANES) {
    const numbers = await page.locator(part(name, '[data-number]')).allTextContents();
    assert.match(numbers[0], /^\d+ ms$|s$/);
    assert.match(numbers[2], /B$/);
    assert.equal(numbers[3], '0');
    const labels = await page.locator(part(name, 'dt')).allTextContents();
    assert.deepEqual(labels, ['first token', 'tokens/s', 'on the wire', 'reconnects']);
  }
  assert.match(await page.textContent('.reply-meta'), /^verified · .*stopped at the token limit$/);
  assert.deepEqual(errors, []);
});

test('page: dropped and switched on the way, each reader still has the whole response', async (t) => {
  const { page, errors, scripted } = await open(t);
  if (!scripted) return t.skip('only the scripted engine is slow for certain');
  await ask(page, 'Why do streams run downhill?', { tokens: 200 });
  for (const name of PANES) {
    await growsPast(page, name, 20);
    await page.click(part(name, '[data-action="drop"]'));
    await growsPast(page, name, await textLength(page, name));
    assert.equal(await page.textContent(part(name, '[data-number="reconnects"]')), '1');
  }
  for (const [i, name] of PANES.entries()) {
    const to = PANES[(i + 1) % 3];
    assert.equal(await page.textContent(part(name, '[data-action="switch"]')), `Switch to ${NAMES[to]}`);
    await page.click(part(name, '[data-action="switch"]'));
    await growsPast(page, name, await textLength(page, name));
    assert.equal(await page.getAttribute(`[data-pane="${name}"]`, 'data-transport'), to);
  }
  await keepPicture(page);
  await assertAllVerified(page);
  for (const name of PANES) {
    const summary = await page.getAttribute(part(name, '[data-timeline]'), 'aria-label');
    assert.match(summary, /^\d+ tokens in .* interruption.*; connection dropped at .*; transport switched at [^;]*\.$/);
  }
  assert.deepEqual(errors, []);
});

test('page: reasoning is folded, and a card for each call says whether it is complete', async (t) => {
  const { page, errors, scripted } = await open(t);
  if (!scripted) return t.skip('only the scripted engine has calls for certain');
  let parts = 'reasoning:30,text:30,call:get_weather+get_time:6,refusal:5';
  await page.route('**/v1/generations', (route) => {
    const request = route.request();
    if (request.method() !== 'POST') return route.continue();
    const body = JSON.parse(request.postData());
    return route.continue({ postData: JSON.stringify({ ...body, metadata: { ...body.metadata, 'scripted.parts': parts } }) });
  });
  await ask(page, 'What is the weather?', { tokens: 200 });
  for (const name of PANES) {
    await growsPast(page, name, 20);
    await page.click(part(name, '[data-action="drop"]'));
  }
  await assertAllVerified(page);
  const kinds = await page.locator('.reply:last-child .part').evaluateAll((all) => all.map((each) => each.dataset.kind));
  assert.deepEqual(kinds, ['reasoning', 'tool_call', 'tool_call', 'refusal']);
  const reasoning = page.locator('.reply:last-child details.part');
  assert.equal(await reasoning.locator('.part-body').isVisible(), false);
  await reasoning.locator('summary').click();
  assert.equal((await reasoning.locator('.part-body').textContent()).split(' ').length, 30);
  const cards = page.locator('.reply:last-child .part[data-kind="tool_call"]');
  assert.deepEqual(await cards.locator('h4').allTextContents(), ['get_weather()', 'get_time()']);
  assert.deepEqual(await cards.locator('.part-state').allTextContents(), ['complete', 'complete']);
  for (const text of await cards.locator('.part-body').allTextContents()) assert.deepEqual(Object.keys(JSON.parse(text)), ['words']);
  await keepPicture(page, '-parts');
  // Cut by the limit in the arguments.
  parts = 'text:20,call:get_weather:30';
  await ask(page, 'And tomorrow?', { tokens: 30 });
  await page.waitForSelector('.turn:last-child .part[data-state="incomplete"]');
  assert.match(await page.textContent('.turn:last-child .part-state'), /do not execute/);
  assert.deepEqual(errors, []);
});

test('page: Escape stops, the text so far is verified, and the next question works', async (t) => {
  const { page, errors, scripted } = await open(t, { colorScheme: 'dark' });
  if (!scripted) return t.skip('only the scripted engine is slow for certain');
  await ask(page, 'Tell me everything.', { tokens: 2000 });
  for (const name of PANES) await growsPast(page, name, 40);
  await page.keyboard.press('Escape');
  await assertAllVerified(page);
  assert.match(await page.textContent('.reply:last-child .reply-meta'), /verified · stopped/);
  await ask(page, 'And now briefly.', { tokens: 30 });
  await page.waitForSelector('#stop:not([disabled])');
  await assertAllVerified(page);
  assert.equal(await page.locator('.turn').count(), 4);
  await keepPicture(page, '-dark');
  assert.deepEqual(errors, []);
});

test('page: the timeline is drawn while text arrives, in the colours of the page', async (t) => {
  const { page, errors } = await open(t, { deviceScaleFactor: 2 });
  const canvas = (name) => page.locator(part(name, '[data-timeline]'));
  const picture = (name) => canvas(name).evaluate((element) => element.toDataURL());
  const blank = await picture('sse');
  await ask(page, 'Why do streams run downhill?', { tokens: 60 });
  await assertAllVerified(page);
  for (const name of PANES) {
    assert.notEqual(await picture(name), blank);
    const [width, clientWidth] = await canvas(name).evaluate((element) => [element.width, element.clientWidth]);
    assert.equal(width, 2 * clientWidth);
    assert.match(await page.textContent(part(name, '[data-timeline-end]')), /^[\d.]+ s$/);
  }
  const light = await picture('sse');
  await page.emulateMedia({ colorScheme: 'dark' });
  const before = Date.now();
  while ((await picture('sse')) === light) assert.ok(Date.now() - before < 10_000, 'the colours did not change');
  assert.deepEqual(errors, []);
});

test('page: Escape closes open settings and stops nothing', async (t) => {
  const { page, scripted } = await open(t);
  if (!scripted) return t.skip('only the scripted engine is slow for certain');
  await ask(page, 'Tell me everything.', { tokens: 2000 });
  await growsPast(page, 'sse', 20);
  await page.click('#settings summary');
  await page.focus('#max-tokens');
  await page.keyboard.press('Escape');
  assert.equal(await page.evaluate(() => document.getElementById('settings').open), false);
  assert.equal(await page.evaluate(() => document.activeElement.localName), 'summary');
  assert.equal(await page.isEnabled('#stop'), true);
  await page.keyboard.press('Escape');
  await assertAllVerified(page);
  assert.match(await page.textContent('.reply-meta'), /verified · stopped/);
});

test('page: one region speaks, and the panes are groups', async (t) => {
  const { page } = await open(t);
  assert.equal(await page.getAttribute('[role="log"]', 'aria-live'), 'off');
  assert.equal(await page.locator('[role="region"]').count(), 0);
  assert.equal(await page.locator('[data-text][role="group"][aria-label]').count(), 3);
});

test('page: at the width of a phone nothing overflows', async (t) => {
  const { page, errors } = await open(t, { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2 });
  await ask(page, 'Why do streams run downhill?', { tokens: 40 });
  await assertAllVerified(page);
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(width <= 390, `the page is ${width} px wide`);
  await keepPicture(page, '-phone');
  assert.deepEqual(errors, []);
});

/** Presses Tab until the focus is on `selector`, or fails after 40 times. */
async function tabTo(page, selector) {
  for (let n = 0; n < 40; n++) {
    if (await page.evaluate((wanted) => document.activeElement.matches(wanted), selector)) return;
    await page.keyboard.press('Tab');
  }
  assert.fail(`Tab does not reach ${selector}`);
}

test('page: drop, switch and stop by keyboard alone', async (t) => {
  const { page, errors, scripted } = await open(t);
  if (!scripted) return t.skip('only the scripted engine is slow for certain');
  await ask(page, 'Tell me everything.', { tokens: 2000 });
  await growsPast(page, 'websocket', 20);
  await tabTo(page, part('websocket', '[data-action="drop"]'));
  await page.keyboard.press('Enter');
  await page.waitForFunction((number) => document.querySelector(number).textContent === '1',
    part('websocket', '[data-number="reconnects"]'));
  await tabTo(page, part('websocket', '[data-action="switch"]'));
  await page.keyboard.press('Space');
  await page.waitForSelector('[data-pane="websocket"][data-transport="poll"]');
  await tabTo(page, '#stop');
  await page.keyboard.press('Enter');
  await assertAllVerified(page);
  assert.equal(await page.evaluate(() => document.activeElement.id), 'question');
  assert.deepEqual(errors, []);
});

test('page: usable by keyboard alone, and every control has a name', async (t) => {
  const { page } = await open(t);
  assert.equal(await page.evaluate(() => document.activeElement.id), 'question');
  await page.keyboard.type('Hello?');
  await page.keyboard.press('Shift+Enter');
  await page.keyboard.type('Still one message.');
  await page.keyboard.press('Enter');
  assert.equal(await page.textContent('.question'), 'Hello?\nStill one message.');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'question');
  const nameless = await page.evaluate(() => [...document.querySelectorAll('button, input, select, textarea')]
    .filter((control) => !(control.labels?.length || control.textContent.trim()))
    .map(({ id }) => id));
  assert.deepEqual(nameless, []);
});
