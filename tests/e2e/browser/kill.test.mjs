// A real browser keeps its responses while the bridges are killed and restarted.
import assert from 'node:assert/strict';
import test from 'node:test';
import { launch } from './browser.mjs';
import { startRunnel } from '../processes.mjs';

const PANES = ['sse', 'websocket', 'poll'];

test('page: kill -9 of either bridge while text arrives, and every pane verifies', async (t) => {
  const runnel = await startRunnel();
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
  for (const victim of ['sse', 'ws']) {
    for (const name of PANES) await growsPast(name, 60);
    await runnel[victim].kill('SIGKILL');
    await runnel[victim].start();
    for (const name of PANES) await growsPast(name, (await page.textContent(text(name))).length);
  }
  await page.waitForSelector('#agreement:not([data-agreement="none"])');
  for (const name of PANES) {
    assert.equal(await page.getAttribute(`[data-pane="${name}"] [data-badge]`, 'data-state'), 'verified', name);
  }
  assert.equal(await page.getAttribute('#agreement', 'data-agreement'), 'yes');
});
