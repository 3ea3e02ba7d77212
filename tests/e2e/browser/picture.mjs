// Takes the picture of the page that README.md shows, with the real processes and a server that plays one answer.
//
//   RUNNEL_BIN=build/release/bin node tests/e2e/browser/picture.mjs FOLDER
//
// Writes page.png (finished), and beside it idle, streaming, dark and phone pictures for review.
import { once } from 'node:events';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { startRunnel } from '../processes.mjs';

const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'];
const QUESTION = 'Why do streams run downhill?';
const TOKEN_MS = 45;
const TEXT = `Because **gravity** does the work. Water on a slope has potential energy, and it moves to where it has less:

1. Rain collects in the lowest line of the ground.
2. It starts to flow as soon as the slope overcomes friction.
3. The flow cuts its bed, so later water takes the same way.

The speed follows roughly from *Manning's formula*:

\`\`\`python
def speed(radius, slope, roughness=0.035):
    """Mean speed of a stream in m/s."""
    return radius ** (2 / 3) * slope ** 0.5 / roughness
\`\`\`

| stream | slope | speed |
|:--|--:|--:|
| mountain brook | 4 % | 1.2 m/s |
| lowland river | 0.02 % | 0.6 m/s |

> A stream never looks for the sea. It only ever looks for the next lower place.
`;

/** An OpenAI-compatible server that answers everything with TEXT. */
async function startUpstream() {
  const server = createServer(async (request, response) => {
    if (request.method === 'GET') {
      response.setHeader('content-type', 'application/json');
      return response.end(JSON.stringify({ object: 'list', data: [{ id: 'demo-7b-instruct', object: 'model' }] }));
    }
    request.resume();
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    const send = (choice) => response.write(`data: ${JSON.stringify({ object: 'chat.completion.chunk', choices: [{ index: 0, ...choice }] })}\n\n`);
    for (const content of TEXT.match(/\s*\S{1,6}|\s+$/g)) {
      send({ delta: { content } });
      await new Promise((resolve) => setTimeout(resolve, TOKEN_MS));
    }
    send({ delta: {}, finish_reason: 'stop' });
    return response.end('data: [DONE]\n\n');
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

const button = (pane, action) => `[data-pane="${pane}"] [data-action="${action}"]`;

/** Asks, and on the way drops one connection and switches another one. */
async function play(page, shot) {
  await page.fill('#question', QUESTION);
  await page.press('#question', 'Enter');
  const grown = (past) => page.waitForFunction(
    (length) => document.querySelector('[data-pane="websocket"] [data-text]').textContent.length > length, past);
  await grown(250);
  await page.click(button('websocket', 'drop'));
  await shot('dropped');
  await grown(400);
  await page.click(button('poll', 'switch'));
  await grown(500);
  await page.click(button('sse', 'drop'));
  await grown(600);
  await shot('streaming');
  await page.waitForSelector('#agreement[data-agreement="yes"]', { timeout: 60_000 });
}

const SIZES = [
  { name: 'page', viewport: { width: 1360, height: 860 } },
  { name: 'dark', viewport: { width: 1360, height: 860 }, colorScheme: 'dark' },
  { name: 'phone', viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, fullPage: true },
  { name: 'phone-dark', viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, fullPage: true, colorScheme: 'dark' },
];

const folder = process.argv[2] ?? '.';
const upstream = await startUpstream();
const runnel = await startRunnel({ engine: ['--engine=upstream', `--upstream_url=http://127.0.0.1:${upstream.address().port}/v1`] });
const browser = await chromium.launch({ executablePath: process.env.RUNNEL_CHROMIUM ?? '/usr/bin/chromium', args: FLAGS });
try {
  for (const { name, fullPage = false, ...options } of SIZES) {
    const page = await (await browser.newContext(options)).newPage();
    const shot = (suffix) => page.screenshot({ path: join(folder, `${name}${suffix ? `-${suffix}` : ''}.png`), fullPage });
    await page.goto(runnel.url);
    await page.waitForSelector('#send:not([disabled])');
    await shot('idle');
    await play(page, shot);
    await shot('');
    await page.close();
  }
} finally {
  await browser.close();
  await runnel.stop();
  upstream.close();
  upstream.closeAllConnections();
}
