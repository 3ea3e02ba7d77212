// Draws a timeline on a canvas: ticks for generation above ticks for arrival, joined by lines whose slant is the delay.
// Draws only after a change and at most once per frame. Nothing is animated.

const TICK = 9;
const LINE_ALPHA = 0.28;
const OUTAGE_ALPHA = 0.16;
// The text for screen readers changes no more often than this.
const SUMMARY_EVERY_MS = 2000;
const LABEL_HEIGHT = 14;

export class TimelineStrip {
  #canvas;
  #end;
  #timeline = null;
  #nowMs = 0;
  #frameRequested = false;
  #summaryAt = -Infinity;

  /** `canvas` shows the timeline, and `end` the time at its right edge. */
  constructor(canvas, end) {
    this.#canvas = canvas;
    this.#end = end;
    new ResizeObserver(() => this.#requestFrame()).observe(canvas);
    for (const query of ['(prefers-color-scheme: dark)', '(forced-colors: active)']) {
      matchMedia(query).addEventListener('change', () => this.#requestFrame());
    }
  }

  /** Shows `timeline` as it is at `nowMs`. */
  show(timeline, nowMs) {
    this.#timeline = timeline;
    this.#nowMs = nowMs;
    this.#requestFrame();
  }

  #requestFrame() {
    if (this.#frameRequested) return;
    this.#frameRequested = true;
    requestAnimationFrame(() => {
      this.#frameRequested = false;
      if (this.#timeline) this.#draw();
    });
  }

  #draw() {
    const canvas = this.#canvas;
    const { clientWidth: width, clientHeight: height } = canvas;
    const scale = window.devicePixelRatio;
    const size = { width: Math.round(width * scale), height: Math.round(height * scale) };
    // Setting a size clears the canvas and gives it new memory, even if it is the same.
    if (canvas.width !== size.width || canvas.height !== size.height) Object.assign(canvas, size);
    const context = canvas.getContext('2d');
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    const layout = this.#timeline.layout(width, this.#nowMs);
    const style = getComputedStyle(canvas);
    const color = (name) => style.getPropertyValue(`--${name}`).trim();
    this.#drawOutages(context, layout, height, color('bad'));
    this.#drawTokens(context, layout, height, { generated: color('muted'), arrived: color('accent') });
    const colors = { ink: color('warn'), ground: color('surface') };
    this.#drawMarks(context, layout, { width, height }, colors, style.fontFamily);
    this.#describe();
  }

  #drawOutages(context, { outages }, height, color) {
    context.fillStyle = color;
    context.globalAlpha = OUTAGE_ALPHA;
    for (const [from, to] of outages) context.fillRect(from, TICK, Math.max(1, to - from), height - TICK);
    context.globalAlpha = 1;
  }

  #drawTokens(context, { generated, arrived, transits }, height, colors) {
    const lines = (color, alpha, each) => {
      context.beginPath();
      each();
      context.strokeStyle = color;
      context.globalAlpha = alpha;
      context.stroke();
      context.globalAlpha = 1;
    };
    const line = (fromX, fromY, toX, toY) => {
      context.moveTo(fromX + 0.5, fromY);
      context.lineTo(toX + 0.5, toY);
    };
    context.lineWidth = 1;
    lines(colors.arrived, LINE_ALPHA, () => transits.forEach(([from, to]) => line(from, TICK, to, height - TICK)));
    lines(colors.generated, 1, () => generated.forEach((x) => line(x, 0, x, TICK)));
    lines(colors.arrived, 1, () => arrived.forEach((x) => line(x, height - TICK, x, height)));
  }

  #drawMarks(context, { marks }, { width, height }, { ink, ground }, font) {
    context.font = `600 11px ${font}`;
    context.textBaseline = 'middle';
    for (const { kind, x } of marks) {
      context.fillStyle = ink;
      context.fillRect(Math.min(x, width - 1.5), 0, 1.5, height);
      const labelWidth = context.measureText(kind).width + 6;
      const left = x + labelWidth + 2 > width ? x - labelWidth : x + 1.5;
      context.fillStyle = ground;
      context.fillRect(left, (height - LABEL_HEIGHT) / 2, labelWidth, LABEL_HEIGHT);
      context.fillStyle = ink;
      context.fillText(kind, left + 3, height / 2);
    }
  }

  #describe() {
    const { spanMs, ended } = this.#timeline;
    this.#end.textContent = `${Number((spanMs / 1000).toFixed(1))} s`;
    if (!ended && this.#nowMs - this.#summaryAt < SUMMARY_EVERY_MS) return;
    this.#summaryAt = this.#nowMs;
    this.#canvas.setAttribute('aria-label', this.#timeline.summary());
  }
}
