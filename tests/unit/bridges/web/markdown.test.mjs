// Markdown of the page: the nodes that it renders, that they are harmless, and that they do not depend on the pieces in
// which the text arrives.
import assert from 'node:assert/strict';
import test from 'node:test';
import { PlainText } from '../../../../bridges/web/page/growing_text.js';
import { MarkdownBlocks } from '../../../../bridges/web/page/markdown_blocks.js';
import { nodesOf, safeHref } from '../../../../bridges/web/page/markdown_nodes.js';
import { MarkdownText } from '../../../../bridges/web/page/markdown_text.js';
import { fakeDocument } from './fake_dom.mjs';

globalThis.document = fakeDocument;

const ALLOWED_TAGS = new Set([
  'main', 'p', 'h3', 'h4', 'h5', 'h6', 'ul', 'ol', 'li', 'pre', 'code', 'blockquote', 'hr', 'br', 'strong', 'em', 'del',
  'a', 'div', 'table', 'thead', 'tbody', 'tr', 'th', 'td',
]);

function render(...pieces) {
  const root = fakeDocument.createElement('main');
  const view = new MarkdownText(root);
  for (const piece of pieces) {
    view.append(piece);
    view.paint(false);
  }
  view.paint(true);
  return root;
}

const structure = (...pieces) => render(...pieces).childNodes.join(' ');

test('markdown: what it renders', () => {
  const rows = [
    ['', ''],
    ['Plain.', 'p("Plain.")'],
    ['a **b** _c_ ~~d~~ `e`', 'p("a " strong("b") " " em("c") " " del("d") " " code("e"))'],
    ['# One\n###### Six', 'h3("One") h6("Six")'],
    ['- a\n- b\n  - c', 'ul(li("a") li("b" ul(li("c"))))'],
    ['3. a\n4. b', 'ol start=3(li("a") li("b"))'],
    ['- [x] done\n- [ ] open', 'ul(li("☑ " "done") li("☐ " "open"))'],
    ['> quoted', 'blockquote(p("quoted"))'],
    ['```cpp\nint x;\n```', 'pre lang=cpp(code("int x;"))'],
    ['a\n\n---\n\nb', 'p("a") hr p("b")'],
    ['|a|b|\n|-|-:|\n|1|2|', 'div.table(table(thead(tr(th("a") th.align-right("b"))) tbody(tr(td("1") td.align-right("2")))))'],
    ['[x](https://a.example/?p=1&amp;q=2)', 'p(a href=https://a.example/?p=1&q=2("x"))'],
    ['see https://a.example/b', 'p("see " a href=https://a.example/b("https://a.example/b"))'],
    ['mail a@b.example', 'p("mail " a href=mailto:a@b.example("a@b.example"))'],
    ['1 &lt; 2 &amp;&#38; &#x41;&nbsp;&unknown;', 'p("1 < 2 && A\u00a0&unknown;")'],
    ['\\*not bold\\*', 'p("*" "not bold" "*")'],
  ];
  for (const [text, expected] of rows) assert.equal(structure(text), expected, text);
});

test('markdown: an image becomes a link', () => {
  assert.equal(structure('![a cat](https://a.example/c.png)'), 'p(a href=https://a.example/c.png("a cat"))');
  assert.equal(structure('![](https://a.example/c.png)'), 'p(a href=https://a.example/c.png("https://a.example/c.png"))');
});

const HOSTILE = [
  '<script>alert(1)</script>',
  'a <script>alert(1)</script> b',
  '<img src=x onerror=alert(1)>',
  '<div onclick="alert(1)">**x**</div>',
  '<svg><script>alert(1)</script></svg>',
  '<!-- <script> -->',
  '<iframe srcdoc="<script>alert(1)</script>"></iframe>',
  '<style>*{display:none}</style>',
  '<https://a.example/"onmouseover="alert(1)>',
  '```"><script>alert(1)</script>\nx\n```',
  '|<b>a</b>|\n|-|\n|<img src=x onerror=alert(1)>|',
  '# <script>alert(1)</script>',
  '- <script>alert(1)</script>',
  '> <img src=x onerror=alert(1)>',
  '&lt;script&gt;alert(1)&lt;/script&gt;',
  '[a]: javascript:alert(1)\n\n[a]',
  '[x](https://a.example "\\"><script>alert(1)</script>")',
];

test('markdown: HTML stays text', () => {
  for (const text of HOSTILE) {
    const root = render(text);
    for (const { tag } of root.elements()) assert.ok(ALLOWED_TAGS.has(tag), `${tag} of ${text}`);
  }
  assert.equal(structure('a <b onclick="x()">b</b>'), 'p("a <b onclick=\\"x()\\">b</b>")');
  assert.equal(render('<script>alert(1)</script>').textContent, '<script>alert(1)</script>');
});

test('markdown: only http, https and mailto are linked', () => {
  for (const href of [
    'javascript:alert(1)', 'JaVaScRiPt:alert(1)', ' javascript:alert(1)', 'java\tscript:alert(1)', 'java\nscript:alert(1)',
    '\u0001javascript:alert(1)', 'javascript&colon;alert(1)', 'javascript&#58;alert(1)', '&#106;avascript:alert(1)',
    '&#x6A;avascript:alert(1)', '&#0000106avascript:alert(1)', 'java&#9;script:alert(1)', 'java&Tab;script:alert(1)',
    'data:text/html,<script>alert(1)</script>', 'data:image/svg+xml;base64,PHN2Zz4=', 'vbscript:msgbox(1)',
    'file:///etc/passwd', 'blob:https://a.example/x', 'about:blank', 'view-source:https://a.example', '//a.example/x',
    '/v1/models', '#x', '', 'https://', 'x',
  ]) {
    assert.equal(safeHref(href), null, href);
    for (const { tag } of render(`[x](${href}) [y](<${href}>) ![z](${href}) <${href}>`).elements()) {
      assert.ok(tag !== 'a', `a link of ${href}`);
    }
  }
  assert.equal(safeHref('HTTPS://a.example/ä'), 'https://a.example/%C3%A4');
  assert.equal(safeHref('mailto:a@b.example'), 'mailto:a@b.example');
});

test('markdown: every link is opened apart from the page', () => {
  const links = [...render('[x](https://a.example) ![y](http://b.example) mailto:a@b.example').elements()]
    .filter(({ tag }) => tag === 'a');
  assert.equal(links.length, 3);
  for (const { rel, target } of links) assert.deepEqual([rel, target], ['noopener noreferrer', '_blank']);
});

test('markdown: what nests deep stays shallow and keeps its text', () => {
  const levels = 60;
  const nested = {
    quotes: `${'>'.repeat(5000)} deep`,
    lists: `${'- '.repeat(5000)}deep`,
    numbers: `${'1. '.repeat(3000)}deep`,
    indented: Array.from({ length: levels }, (_, n) => `${'  '.repeat(n)}- deep`).join('\n'),
    emphasis: `${'*a **b '.repeat(1000)}deep`,
    brackets: `${'['.repeat(3000)}deep${']'.repeat(3000)}`,
  };
  for (const [name, text] of Object.entries(nested)) {
    const root = render(text);
    const depthOf = (node) => 1 + Math.max(0, ...(node.childNodes ?? []).map(depthOf));
    assert.ok(depthOf(root) < 50, `${name}: ${depthOf(root)}`);
    assert.match(root.textContent, /deep/, name);
  }
});

test('markdown: a table cannot grow beyond its text', () => {
  const wide = `${'|a'.repeat(1000)}|\n${'|-'.repeat(1000)}|\n${'b\n'.repeat(1500)}`;
  const cells = [...render(wide).elements()].filter(({ tag }) => tag === 'td' || tag === 'th');
  assert.ok(cells.length <= 4096, `${cells.length} cells`);
  const long = `|a|b|\n|-|-|\n${'|one|two|\n'.repeat(3000)}`;
  const root = render(long);
  const rows = [...root.elements()].filter(({ tag }) => tag === 'td').length / 2;
  assert.equal(rows, 3000);
});

test('markdown: a block that is too long is continued as one of its kind', () => {
  const line = 'let answer = 42;\n';
  const fence = render(`\`\`\`js\n${line.repeat(3000)}\`\`\`\n\n**after**`);
  const kinds = fence.childNodes.map(({ tag }) => tag);
  assert.equal(kinds.at(-1), 'p');
  assert.deepEqual([...new Set(kinds.slice(0, -1))], ['pre']);
  assert.equal(fence.textContent.split('let answer').length - 1, 3000);
  const list = render('- item of **a** list\n'.repeat(2000));
  assert.deepEqual([...new Set(list.childNodes.map(({ tag }) => tag))], ['ul']);
  assert.equal([...list.elements()].filter(({ tag }) => tag === 'li').length, 2000);
  for (const before of ['', '```js\n', '> ', '🌊']) {
    const { textContent } = render(before + 'x'.repeat(50_000));
    assert.equal(textContent.match(/x/g).length, 50_000, before);
  }
  assert.equal(render(`x${'🌊'.repeat(20_000)}`).textContent, `x${'🌊'.repeat(20_000)}`);
});

const SAMPLES = [
  'A paragraph\nof two lines.\n\nAnother, with `code` and **bold**.\n',
  '# Title\nText under it.\n\n## Next\n\n- a\n- b\n\n  more of b\n- c\n\nafter\n',
  '1. a\n\n2. b\n\n   ```js\n   x();\n   ```\n\n3. c\n\n4 is a number.\n',
  'Title\n=====\n\nSub\n---\ntext\n***\nend',
  '|a|b|\n|:-|-:|\n|1|2|\n|3|4|\n\nafter\n\n| no | table\n',
  '```py\ndef f():\n\n    return "```"\n```\n~~~\nopen\n\n# not a heading\n',
  '> quote\nlazy\n> more\n\n> other\n>\n> - list\n>   - deep\n\nend',
  '<div>\n**a**\n</div>\n\n<!-- c -->\n[x]: https://a.example\n\n[x] https://b.example\n',
  '    indented\n\n    code\n\ntext  \nbreak\\\nend\r\n\r\nnext\rlast\n',
  '* a\n\n\n* b\n+ other\n- third\n\n\n\n   \n text\n',
];

/** A generator of numbers from 0 to 1 that a seed repeats. */
function* numbers(seed) {
  for (let state = seed; ; state = (state * 48_271) % 2_147_483_647) yield state / 2_147_483_647;
}

/** What is shown in the end if each piece is followed by an update. */
function streamed(pieces) {
  const blocks = new MarkdownBlocks();
  const settled = pieces.flatMap((piece) => {
    blocks.append(piece);
    return blocks.update().settled;
  });
  return nodesOf([...settled, ...blocks.update(true).settled]).join(' ');
}

test('markdown: the same however it streams', () => {
  for (const [index, sample] of SAMPLES.entries()) {
    const whole = structure(sample);
    assert.equal(streamed([...sample]), whole, `sample ${index}, by character`);
    const random = numbers(index + 1);
    for (let round = 0; round < 200; round++) {
      const pieces = [];
      for (let at = 0; at < sample.length; at += pieces.at(-1).length) {
        pieces.push(sample.slice(at, at + 1 + Math.floor(random.next().value * 9)));
      }
      assert.equal(streamed(pieces), whole, `sample ${index}: ${JSON.stringify(pieces)}`);
    }
  }
});

test('markdown: only the last blocks are parsed again', () => {
  const blocks = new MarkdownBlocks();
  let settled = 0;
  for (let n = 0; n < 500; n++) {
    blocks.append(`Paragraph ${n} of a long response.\n\n`);
    const update = blocks.update();
    settled += update.settled.filter(({ type }) => type === 'paragraph').length;
    assert.ok(update.open.length <= 4, `${update.open.length} open blocks`);
  }
  assert.ok(settled >= 498, `${settled} settled`);
});

test('plain text: only the last block grows, and no character is lost', () => {
  const root = fakeDocument.createElement('main');
  const view = new PlainText(root);
  const text = 'A line of some length.\n\nAnother one.\n'.repeat(400);
  for (let at = 0; at < text.length; at += 7) view.append(text.slice(at, at + 7));
  assert.equal(root.textContent, text);
  for (const block of root.childNodes) assert.ok(block.textContent.length < 1010);
  for (const block of root.childNodes.slice(0, -1)) assert.match(block.textContent, /\n$/);
  view.replace('new');
  assert.equal(root.textContent, 'new');
});
