// Responses as Markdown in a real browser: rendered, harmless, and verified as they were sent.
import assert from 'node:assert/strict';
import test from 'node:test';
import { FakeGeneration } from '../../unit/bridges/web/fake_log.mjs';
import { FakeServer } from '../../unit/bridges/web/fake_server.mjs';
import { launch } from './browser.mjs';

/** A page that was asked one question, whose response arrives as `pieces`. */
async function ask(t, pieces, { contextOptions } = {}) {
  const server = await new FakeServer().listen();
  t.after(() => server.close());
  const generation = new FakeGeneration();
  for (const piece of pieces) generation.delta(piece);
  generation.done();
  server.onStart = () => generation;
  const browser = await launch(t);
  const page = await (await browser.newContext(contextOptions)).newPage();
  page.setDefaultTimeout(30_000);
  const problems = [];
  page.on('console', ({ type, text }) => type() === 'error' && problems.push(text()));
  page.on('pageerror', (error) => problems.push(String(error)));
  page.on('dialog', (dialog) => {
    problems.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on('request', (request) => {
    if (!request.url().startsWith(server.url)) problems.push(`request: ${request.url()}`);
  });
  await page.goto(server.url);
  await page.waitForSelector('#send:not([disabled])');
  await page.fill('#question', 'Why do streams run downhill?');
  await page.press('#question', 'Enter');
  await page.waitForSelector('#agreement[data-agreement="yes"]');
  return { page, problems, text: generation.choices[0] };
}

const SAMPLE = '# Title\n\nSome **bold** text with `code`.\n\n- one\n- two\n\n```js\nlet x = 1;\n```\n\n|a|b|\n|-|-:|\n|1|2|\n';

test('page: a response is rendered as Markdown, and its raw text can be shown and copied', async (t) => {
  const { page, problems, text } = await ask(t, SAMPLE.match(/[\s\S]{1,4}/g), {
    contextOptions: { permissions: ['clipboard-read', 'clipboard-write'] },
  });
  for (const selector of ['h3', 'strong', 'p code', 'ul li', 'pre code', 'td.align-right']) {
    assert.ok((await page.locator(`.reply-text ${selector}`).count()) > 0, selector);
  }
  assert.equal(await page.isVisible('.reply-raw'), false);
  await page.click('[data-action="raw"]');
  assert.equal(await page.isVisible('.reply-text'), false);
  assert.equal(await page.isVisible('.reply-raw'), true);
  assert.equal(await page.textContent('.reply-raw'), text);
  await page.click('[data-action="copy"]');
  await page.waitForFunction(() => document.querySelector('[data-action="copy"]').textContent === 'Copied');
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), text);
  assert.deepEqual(problems, []);
});

test('page: hostile Markdown runs nothing, fetches nothing and is verified as it was sent', async (t) => {
  const hostile = [
    '<script>alert(1)</script>', '<img src=x onerror=alert(1)>', '![i](https://outside.example/i.png)',
    '[a](javascript:alert(1))', '[b](java&#115;cript:alert(1))', '[c](data:text/html,<script>alert(1)</script>)',
    '<iframe srcdoc="<script>alert(1)</script>"></iframe>', '<style>body{display:none}</style>',
    '<svg onload=alert(1)>', '<a href="javascript:alert(1)">d</a>', `${'>'.repeat(3000)} deep`, '[ok](https://a.example/)',
    '```\nnever closed <script>alert(1)</script>',
  ].join('\n\n');
  const { page, problems, text } = await ask(t, hostile.match(/[\s\S]{1,7}/gu));
  const found = await page.evaluate(() => {
    const reply = document.querySelector('.reply-text');
    return {
      dangerous: reply.querySelectorAll('script, img, iframe, style, svg, object, embed, form, input, link, meta').length,
      handlers: [...reply.querySelectorAll('*')].flatMap(({ attributes }) => [...attributes])
        .filter(({ name }) => name.startsWith('on') || name === 'style' || name === 'srcdoc').length,
      links: [...reply.querySelectorAll('a')].map(({ href }) => href),
    };
  });
  assert.deepEqual(found, { dangerous: 0, handlers: 0, links: ['https://outside.example/i.png', 'https://a.example/'] });
  assert.equal(await page.textContent('.reply-raw'), text);
  assert.deepEqual(problems, []);
});

test('page: a response of many merged events is shown whole', async (t) => {
  const paragraph = 'This is a sentence of a **long** response with `code` and more text in it.\n\n';
  const { page, text } = await ask(t, Array.from({ length: 2000 }, () => paragraph));
  assert.equal(await page.locator('.reply-text p').count(), 2000);
  assert.equal(await page.textContent('.reply-raw'), text);
});
