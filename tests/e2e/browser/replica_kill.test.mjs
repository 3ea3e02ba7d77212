// A page keeps its responses while the replica that makes them is killed: another one continues them.
import assert from 'node:assert/strict';
import test from 'node:test';
import { startRunnel } from '../processes.mjs';
import { Store } from '../store.mjs';
import { launch } from './browser.mjs';

const PANES = ['sse', 'websocket', 'poll'];

test('page: kill -9 of the inference replica while text arrives, and every pane verifies', async (t) => {
  const store = await Store.start();
  t.after(() => store.kill());
  const runnel = await startRunnel({ replicas: 2, engine: ['--engine=scripted', `--log=redis://${store.address}`] });
  t.after(() => runnel.stop());
  const browser = await launch(t);
  const page = await browser.newPage();
  page.setDefaultTimeout(60_000);
  await page.goto(runnel.url);
  await page.waitForSelector('#send:not([disabled])');
  await page.evaluate(() => (document.getElementById('settings').open = true));
  await page.fill('#max-tokens', '300');
  await page.fill('#pace', '30');
  await page.fill('#question', 'Why do streams run downhill?');
  await page.press('#question', 'Enter');
  const text = (name) => `[data-pane="${name}"] [data-text]`;
  const growsPast = (name, length) => page.waitForFunction(
    ([selector, past]) => document.querySelector(selector).textContent.length > past, [text(name), length]);
  // Whichever replica runs it: each is killed in turn, once the other one continues.
  for (const victim of [runnel.inference, runnel.inference2]) {
    for (const name of PANES) await growsPast(name, 60);
    await victim.kill('SIGKILL');
    await victim.start();
    for (const name of PANES) await growsPast(name, (await page.textContent(text(name))).length);
  }
  await page.waitForSelector('#agreement:not([data-agreement="none"])');
  for (const name of PANES) {
    assert.equal(await page.getAttribute(`[data-pane="${name}"] [data-badge]`, 'data-state'), 'verified', name);
  }
  assert.equal(await page.getAttribute('#agreement', 'data-agreement'), 'yes');
  const takeovers = await Promise.all([runnel.inference, runnel.inference2].map((each) => runnel.metric(each, 'runnel_takeovers_total')));
  assert.ok(takeovers[0] + takeovers[1] >= 1, `${takeovers} takeovers`);
});
