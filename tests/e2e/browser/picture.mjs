// Takes the picture of the page for README.md, with the real processes and an upstream server that plays one response.
//
//   RUNNEL_BIN=build/release/bin node tests/e2e/browser/picture.mjs [FOLDER]
//
// Writes page.png beside this file. With FOLDER, writes it there, with pictures of other states, in dark mode and at the
// width of a phone, for review.
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

/** An OpenAI-compatible server whose response is always TEXT. */
async function startUpstream() {
  const server = createServer(async (request, response) => {
    if (request.method === 'GET') {
      response.setHeader('content-type', 'application/json');
      return response.end(JSON.stringify({ object: 'list', data: [{ id: 'demo-7b-instruct', object: 'model' }] }));
    }
    request.resume();
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    const send = (choice) => {
      const chunk = { object: 'chat.completion.chunk', choices: [{ index: 0, ...choice }] };
      response.write(`data: ${JSON.stringify(chunk)}\n\n`);
    };
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

/** Asks. While text arrives, kills the WebSocket bridge, switches the pane of polling and drops the connection of SSE. */
async function play(runnel, page, shot) {
  await page.fill('#question', QUESTION);
  await page.press('#question', 'Enter');
  const grown = (pane, past) => page.waitForFunction(
    ([name, length]) => document.querySelector(`[data-pane="${name}"] [data-text]`).textContent.length > length, [pane, past]);
  await grown('sse', 200);
  await runnel.ws.kill();
  await grown('sse', 270);
  await shot('killed');
  await runnel.ws.start();
  await grown('websocket', 400);
  await page.click(button('poll', 'switch'));
  await grown('poll', 520);
  await page.click(button('sse', 'drop'));
  await grown('sse', 600);
  await shot('streaming');
  await page.waitForSelector('#agreement[data-agreement="yes"]', { timeout: 60_000 });
}

const DESKTOP = { viewport: { width: 1360, height: 860 } };
const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, fullPage: true };
const SIZES = [
  { name: 'page', ...DESKTOP },
  { name: 'dark', ...DESKTOP, colorScheme: 'dark' },
  { name: 'phone', ...PHONE },
  { name: 'phone-dark', ...PHONE, colorScheme: 'dark' },
];

const folder = process.argv[2] ?? import.meta.dirname;
const sizes = process.argv[2] ? SIZES : SIZES.slice(0, 1);
const upstream = await startUpstream();
const upstreamUrl = `http://127.0.0.1:${upstream.address().port}/v1`;
const runnel = await startRunnel({ engine: ['--engine=upstream', `--upstream_url=${upstreamUrl}`] });
const executablePath = process.env.RUNNEL_CHROMIUM ?? '/usr/bin/chromium';
const browser = await chromium.launch({ executablePath, args: FLAGS });
try {
  for (const { name, fullPage = false, ...options } of sizes) {
    const page = await (await browser.newContext(options)).newPage();
    const shot = async (suffix) => {
      if (suffix && !process.argv[2]) return;
      const path = join(folder, `${name}${suffix && `-${suffix}`}.png`);
      await page.screenshot({ path, fullPage });
    };
    await page.goto(runnel.url);
    await page.waitForSelector('#send:not([disabled])');
    await shot('idle');
    await play(runnel, page, shot);
    await shot('');
    await page.close();
  }
} finally {
  await browser.close();
  await runnel.stop();
  upstream.close();
  upstream.closeAllConnections();
}
