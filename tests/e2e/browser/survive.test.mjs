// runnel.js in a real browser: no network, a frozen page, the back/forward cache, a proxy that buffers, a slow network.
import assert from 'node:assert/strict';
import test from 'node:test';
import { FakeGeneration } from '../../unit/bridges/web/fake_log.mjs';
import { FakeServer } from '../../unit/bridges/web/fake_server.mjs';
import { launch } from './browser.mjs';

const TRANSPORTS = ['sse', 'websocket', 'poll'];

/** A page with readers of one generation: `window.responses[transport]`, and their notices in `window.notices`. */
async function openReaders(t, generation, { options = {}, browserOptions, only = TRANSPORTS } = {}) {
  const server = await new FakeServer().listen();
  t.after(() => server.close());
  server.add(generation);
  t.after(() => generation.stop());
  const browser = await launch(t, browserOptions);
  const page = await (await browser.newContext()).newPage();
  page.setDefaultTimeout(30_000);
  await page.goto(server.url);
  await page.waitForSelector('#send:not([disabled])');
  const read = () => page.evaluate(async ([id, transports, more]) => {
    const { attach } = await import('/runnel.js');
    window.notices = [];
    window.responses = Object.fromEntries(transports.map((transport) => [transport, attach(id, {
      transport, ...more, onNotice: (notice) => window.notices.push({ transport, ...notice, on: transport }),
    })]));
  }, [generation.id, only, options]);
  const ask = (what) => page.evaluate(`Object.values(window.responses).map((response) => ${what})`);
  // Polled from here: the page's content security policy forbids evaluating text.
  const all = async (condition, otherwise = () => {}) => {
    const deadline = Date.now() + 30_000;
    while (!(await ask(condition)).every(Boolean)) {
      assert.ok(Date.now() < deadline, `never: ${condition}`);
      otherwise();
    }
  };
  return {
    server, page, read, ask, all,
    notices: (type) => page.evaluate((kind) => window.notices.filter((notice) => notice.type === kind), type),
    applied: (seq) => all(`response.cursor.after >= ${seq}`),
    /** Asserts that every reader has verified the whole text. */
    whole: async () => {
      await all('response.status === "verified"');
      assert.deepEqual(await ask('response.text()'), only.map(() => generation.choices[0]));
    },
  };
}

test('browser: offline while text arrives: nothing is tried, and the reader resumes with the network', async (t) => {
  const generation = new FakeGeneration().words(5);
  const { server, page, read, ask, all, notices, applied, whole } = await openReaders(t, generation);
  await read();
  await applied(6);
  await page.context().setOffline(true);
  // Chromium itself repeats a request that broke on a connection used before, so one cut is not enough.
  await all('response.status === "reconnecting"', () => server.cut());
  // The backoff is over, and the reader waits for the network.
  await page.waitForFunction(() => Object.keys(window.responses).every((transport) => window.notices
    .filter(({ type, on, offline }) => type === 'waiting' && on === transport && offline).length >= 2));
  const before = server.requests.length;
  generation.words(3).done();
  assert.deepEqual(await ask('response.status'), TRANSPORTS.map(() => 'reconnecting'));
  assert.equal(server.requests.length, before);
  await page.context().setOffline(false);
  await whole();
  assert.equal((await notices('online')).length, 3);
});

test('browser: a frozen renderer detects its dead connection and keeps the live ones', async (t) => {
  const generation = new FakeGeneration().words(5);
  const { server, page, read, ask, applied, whole } = await openReaders(t, generation, { options: { idleTimeoutMs: 6000 } });
  server.faults = [{ on: 'events', silentAfter: 6 }];
  await read();
  await applied(6);
  const system = await page.context().browser().newBrowserCDPSession();
  const { processInfo } = await system.send('SystemInfo.getProcessInfo');
  const renderers = processInfo.filter(({ type }) => type === 'renderer');
  assert.ok(renderers.length > 0);
  for (const { id } of renderers) process.kill(id, 'SIGSTOP');
  generation.words(2).done();
  // Not a wait for a condition: the renderer is frozen for longer than the idle timeout.
  await new Promise((resolve) => setTimeout(resolve, 7000));
  for (const { id } of renderers) process.kill(id, 'SIGCONT');
  await whole();
  assert.deepEqual(await ask('response.stats.reconnects'), [1, 0, 0]);
});

test('browser: a page from the back/forward cache resumes', async (t) => {
  const generation = new FakeGeneration().words(5);
  const browserOptions = { ignoreDefaultArgs: ['--disable-back-forward-cache'] };
  const { server, page, read, applied, whole, ask } = await openReaders(t, generation, { browserOptions });
  await read();
  await applied(6);
  await page.evaluate(() => {
    window.restored = 0;
    window.addEventListener('pageshow', ({ persisted }) => (window.restored += Number(persisted)));
  });
  await page.goto(`${server.url}/icon.svg`);
  generation.words(3);
  await page.evaluate(() => void history.back());
  await page.waitForFunction(() => window.restored === 1);
  await applied(9);
  generation.done();
  await whole();
  assert.deepEqual(await ask('response.stats.reconnects'), [1, 1, 1]);
});

test('browser: a proxy that buffers is reported and bypassed', async (t) => {
  const generation = new FakeGeneration();
  const { server, read, notices, whole, ask } = await openReaders(t, generation, { options: { onBuffered: 'switch' } });
  server.hold = 4096;
  generation.play({ tokens: 400, tokensPerSecond: 40 });
  await read();
  await whole();
  const buffered = await notices('buffered');
  assert.deepEqual(buffered.map(({ on, cause, offer }) => [on, cause, offer]), [['sse', 'bursts', 'websocket']]);
  assert.deepEqual(await ask('response.transport'), ['websocket', 'websocket', 'poll']);
});

test('browser: a slow network is not mistaken for a proxy that buffers', async (t) => {
  const generation = new FakeGeneration();
  const { page, read, notices, whole } = await openReaders(t, generation, { only: ['sse', 'websocket'] });
  await read();
  const network = await page.context().newCDPSession(page);
  await network.send('Network.enable');
  await network.send('Network.emulateNetworkConditions',
    { offline: false, latency: 700, downloadThroughput: 12_000, uploadThroughput: 12_000 });
  generation.play({ tokens: 200, tokensPerSecond: 25 });
  await whole();
  assert.deepEqual(await notices('buffered'), []);
});

test('browser: every connection cut after k bytes, for many k', async (t) => {
  const generation = new FakeGeneration().words(12).done();
  const { server, read, whole } = await openReaders(t, generation);
  for (let k = 0; k < 900; k += 97) {
    server.faults = ['events', 'ws', 'poll'].map((on) => ({ on, cutAfter: k }));
    await read();
    await whole();
  }
});

test('page: progress is shown, and a failed question can be asked again', async (t) => {
  const generations = [new FakeGeneration(), new FakeGeneration().words(9).done()];
  const { server, page } = await openReaders(t, new FakeGeneration());
  server.onStart = () => server.add(generations[server.starts - 1]);
  const remark = (text) => page.waitForFunction(
    (wanted) => document.querySelector('[data-pane="sse"] [data-remark]').textContent === wanted &&
      document.querySelector('.reply-meta').textContent === wanted, text);
  await page.fill('#question', 'Why do streams run downhill?');
  await page.press('#question', 'Enter');
  await page.waitForFunction(() => document.querySelector('[data-pane="sse"]').dataset.state === 'streaming');
  const beat = async (state, text) => {
    server.beat(state);
    await remark(text);
  };
  await beat({ stage: 'queued', queue_position: 3 }, 'waiting, 3rd in the queue');
  await beat({ stage: 'queued', queue_position: 1 }, 'waiting, 1st in the queue');
  await beat({ stage: 'prefill', prefill_share: 0.4 }, 'reading the prompt, 40 %');
  generations[0].delta('So').failed();
  await page.click('[data-action="again"]');
  await page.waitForSelector('#agreement[data-agreement="yes"]');
  assert.equal(await page.locator('.reply:last-child .reply-raw').textContent(), generations[1].choices[0]);
  assert.deepEqual(server.requests.filter(({ kind }) => kind === 'create').length, 2);
});
