// Paints the swim-lane picture on a canvas: only what is in view, and where many boxes fall on the same
// pixels only one of them. Knows nothing of React; colours come from the page's tokens.
import { clock, duration, type Zone } from "../lib/time";
import type { Tone } from "../lib/words";
import type { Bar, Layout, Mark } from "./lanes";
import { type TimeScale, tickStep } from "./timescale";

export interface View {
  /** Position in the picture at the left edge. */
  left: number;
  zoom: number;
  width: number;
}

export interface Colors {
  text: string;
  muted: string;
  line: string;
  faint: string;
  bar: string;
  accent: string;
  surface: string;
  gap: string;
  tone: Record<Tone, string>;
}

export interface Scene {
  layout: Layout;
  scale: TimeScale;
  view: View;
  colors: Colors;
  zone: Zone;
  /** Message in the panel. */
  selected: number | null;
  /** Messages on the way to the selected one. */
  path: ReadonlySet<number>;
  problems: ReadonlySet<number>;
}

export const AXIS = 26;
const CONNECTORS_UP_TO = 400;
const CROWDED = 150;

/** So that what happens first is not cut off. */
export const LEFT_ROOM = 10;

export const toScreen = (view: View, x: number) => LEFT_ROOM + (x - view.left) * view.zoom;
export const fromScreen = (view: View, x: number) => view.left + (x - LEFT_ROOM) / view.zoom;

export function paint(canvas: HTMLCanvasElement, scene: Scene): void {
  const ratio = window.devicePixelRatio || 1;
  const { width } = scene.view;
  const height = scene.layout.height + AXIS;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  if (!context) return;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = '500 11px "Inter Variable", system-ui, sans-serif';
  context.textBaseline = "middle";
  paintLanes(context, scene);
  paintAxis(context, scene);
  context.save();
  context.translate(0, AXIS);
  paintConnectors(context, scene);
  paintBars(context, scene);
  paintMarks(context, scene);
  context.restore();
}

function paintLanes(context: CanvasRenderingContext2D, { layout, view, colors }: Scene) {
  context.fillStyle = colors.line;
  for (const lane of layout.lanes) context.fillRect(0, AXIS + lane.y, view.width, 1);
}

function paintAxis(context: CanvasRenderingContext2D, { layout, scale, view, colors, zone }: Scene) {
  const bottom = layout.height + AXIS;
  for (const segment of scale.segments) {
    const from = toScreen(view, segment.x0);
    const to = toScreen(view, segment.x1);
    if (to < 0 || from > view.width) continue;
    if (segment.gap) {
      context.fillStyle = colors.gap;
      context.fillRect(from, 0, to - from, bottom);
      context.strokeStyle = colors.muted;
      context.globalAlpha = 0.45;
      context.setLineDash([2, 3]);
      line(context, from + 0.5, 0, from + 0.5, bottom);
      line(context, to - 0.5, 0, to - 0.5, bottom);
      context.setLineDash([]);
      context.globalAlpha = 1;
      context.fillStyle = colors.muted;
      context.textAlign = "center";
      context.fillText(duration(segment.t1 - segment.t0), (from + to) / 2, AXIS / 2, to - from + 8);
      continue;
    }
    paintTicks(context, { segment, from, to, bottom, view, colors, zone });
  }
  context.textAlign = "left";
}

interface Stretch {
  segment: TimeScale["segments"][number];
  from: number;
  to: number;
  bottom: number;
  view: View;
  colors: Colors;
  zone: Zone;
}

function paintTicks(
  context: CanvasRenderingContext2D,
  { segment, from, to, bottom, view, colors, zone }: Stretch,
) {
  const length = segment.t1 - segment.t0;
  if (length <= 0 || to - from < 1) return;
  const perMs = (to - from) / length;
  const step = tickStep(perMs, 96);
  const firstVisible = segment.t0 + Math.max(0, -from) / perMs;
  const lastVisible = segment.t0 + (Math.min(view.width, to) - from) / perMs;
  let drawn = false;
  for (let time = Math.ceil(firstVisible / step) * step; time <= lastVisible; time += step) {
    const x = from + (time - segment.t0) * perMs;
    const label = clock(time, zone, step < 1000 ? "ms" : "s");
    context.fillStyle = colors.line;
    context.fillRect(Math.round(x), AXIS - 5, 1, bottom);
    if (x + context.measureText(label).width + 6 > Math.min(to, view.width)) continue;
    context.fillStyle = colors.muted;
    context.textAlign = "left";
    context.fillText(label, Math.round(x) + 4, AXIS / 2);
    drawn = true;
  }
  // A short stretch of work between two gaps still says when it was.
  if (!drawn && from >= 0) {
    const label = clock(segment.t0, zone, "s");
    if (to - from > context.measureText(label).width + 6) {
      context.fillStyle = colors.muted;
      context.fillText(label, from + 4, AXIS / 2);
    }
  }
}

/** From a publish straight down or up to where its wait begins. */
function paintConnectors(context: CanvasRenderingContext2D, scene: Scene) {
  const { layout, view, colors, selected, path } = scene;
  const many = layout.bars.length > CONNECTORS_UP_TO;
  for (const strong of [false, true]) {
    if (!strong && many) continue;
    context.strokeStyle = strong ? colors.accent : colors.faint;
    context.lineWidth = strong ? 1.5 : 1;
    for (const bar of layout.bars) {
      if ((bar.message === selected || path.has(bar.message)) !== strong) continue;
      const mark = layout.markOf.get(bar.message);
      if (!mark || bar.wait === null || Math.abs(bar.wait - mark.x) > 0.5) continue;
      const x = Math.round(toScreen(view, mark.x)) + 0.5;
      if (x < 0 || x > view.width) continue;
      line(context, x, mark.y, x, bar.y + bar.height / 2);
    }
  }
  context.lineWidth = 1;
}

function paintBars(context: CanvasRenderingContext2D, scene: Scene) {
  const { layout, view, colors, selected, path, problems } = scene;
  let last = "";
  const important: Bar[] = [];
  for (const bar of layout.bars) {
    const from = toScreen(view, bar.wait ?? bar.start);
    const to = toScreen(view, bar.end);
    if (to < -140 || from > view.width) continue;
    if (bar.message === selected || problems.has(bar.message)) {
      important.push(bar);
      continue;
    }
    // Thousands of boxes on the same pixels look like one.
    const place = `${Math.round(from)} ${Math.round(to)} ${bar.y}`;
    if (place === last) continue;
    last = place;
    paintBar(context, bar, scene, path.has(bar.message));
  }
  for (const bar of important) {
    if (bar.message === selected) {
      const from = toScreen(view, bar.wait ?? bar.start);
      const to = Math.max(toScreen(view, bar.end), toScreen(view, bar.start) + 4);
      context.strokeStyle = colors.accent;
      context.lineWidth = 1.5;
      round(context, from - 3.5, bar.y - 2.5, to - from + 7 + (bar.height > 6 ? 12 : 0), bar.height + 5, 4);
      context.stroke();
      context.lineWidth = 1;
    }
    paintBar(context, bar, scene, true);
  }
}

function paintBar(
  context: CanvasRenderingContext2D,
  bar: Bar,
  { view, colors, layout, problems }: Scene,
  strong: boolean,
) {
  const start = toScreen(view, bar.start);
  const end = Math.max(toScreen(view, bar.end), start + 3);
  const quiet = bar.tone === "ok" || (bar.tone === "waiting" && !bar.open);
  const color = quiet ? colors.bar : colors.tone[bar.tone];
  if (bar.wait !== null) {
    const from = toScreen(view, bar.wait);
    if (start - from > 1)
      hatch(
        context,
        Math.max(from, -20),
        bar.y,
        Math.min(start, view.width + 20),
        bar.height,
        bar.undelivered ? color : colors.bar,
      );
  }
  if (!bar.undelivered) {
    context.fillStyle = color;
    const from = Math.max(start, -20);
    const width = Math.min(end, view.width + 20) - from;
    if (bar.height > 5) {
      round(context, from, bar.y, width, bar.height, 2.5);
      context.fill();
    } else context.fillRect(from, bar.y, width, bar.height);
    if (bar.open) {
      // Not ended yet: a dashed edge instead of a glyph.
      context.strokeStyle = colors.surface;
      context.setLineDash([3, 3]);
      line(context, end - 1, bar.y, end - 1, bar.y + bar.height);
      context.setLineDash([]);
    }
  }
  if (bar.height < 7) return;
  const middle = bar.y + bar.height / 2;
  let text = end + 6;
  if (!bar.undelivered && !bar.open) {
    paintOutcome(context, bar.outcome, end + 8, middle, quiet ? colors.muted : color);
    text = end + 20;
  }
  if (layout.bars.length > 160 && !strong) return;
  const troubled = problems.has(bar.message) && !quiet;
  context.fillStyle = troubled ? color : strong ? colors.text : colors.muted;
  const width = context.measureText(bar.label).width;
  // What has not ended, and what has no room after its end, carries the name inside.
  if (bar.open || text + width > view.width) {
    const inside = Math.max(toScreen(view, bar.wait ?? bar.start), 0) + 8;
    if (inside + width + 8 > Math.min(end, view.width)) return;
    context.fillStyle = colors.surface;
    context.fillRect(inside - 4, bar.y + 1, width + 8, bar.height - 2);
    context.fillStyle = troubled ? color : colors.text;
    context.fillText(bar.label, inside, middle + 0.5);
    return;
  }
  // Lines that cross a name stay off it.
  context.strokeStyle = colors.surface;
  context.lineWidth = 3;
  context.lineJoin = "round";
  context.strokeText(bar.label, text, middle + 0.5);
  context.lineWidth = 1;
  context.fillText(bar.label, text, middle + 0.5);
}

/** The end of a handling as a shape: check, cross, turn, broken circle. */
function paintOutcome(
  context: CanvasRenderingContext2D,
  outcome: string | null,
  x: number,
  y: number,
  color: string,
) {
  context.strokeStyle = color;
  context.fillStyle = color;
  context.lineWidth = 1.6;
  context.lineCap = "round";
  context.beginPath();
  switch (outcome) {
    case "acked":
    case "committed":
      context.moveTo(x - 3.5, y + 0.2);
      context.lineTo(x - 1, y + 2.8);
      context.lineTo(x + 3.5, y - 2.8);
      break;
    case "auto":
      context.arc(x - 1, y, 2, 0, Math.PI * 2);
      context.fill();
      context.beginPath();
      break;
    case "rejected":
      context.lineWidth = 2.2;
      context.moveTo(x - 3, y - 3);
      context.lineTo(x + 3, y + 3);
      context.moveTo(x + 3, y - 3);
      context.lineTo(x - 3, y + 3);
      break;
    case "requeued":
      context.arc(x, y, 3.2, -0.4, Math.PI * 1.45);
      context.moveTo(x + 0.2, y - 6);
      context.lineTo(x + 0.4, y - 3.2);
      context.lineTo(x - 2.4, y - 2.6);
      break;
    default:
      context.setLineDash([2, 2]);
      context.arc(x, y, 3.2, 0, Math.PI * 2);
  }
  context.stroke();
  context.setLineDash([]);
  context.lineWidth = 1;
  context.lineCap = "butt";
}

function paintMarks(context: CanvasRenderingContext2D, { layout, view, colors, selected, path }: Scene) {
  let last = "";
  const crowded = layout.marks.length > CROWDED;
  const paintOne = (mark: Mark, strong: boolean) => {
    const size = crowded && !strong ? 3 : 4.5;
    const x = toScreen(view, mark.x);
    if (x < -8 || x > view.width + 8) return;
    const place = `${Math.round(x)} ${mark.y} ${mark.tone}`;
    if (!strong && place === last) return;
    last = place;
    const bad = mark.tone !== "ok";
    const color = bad ? colors.tone[mark.tone] : strong ? colors.accent : crowded ? colors.bar : colors.text;
    context.fillStyle = mark.answered ? color : colors.surface;
    context.strokeStyle = color;
    context.lineWidth = 1.4;
    context.beginPath();
    context.moveTo(x, mark.y - size);
    context.lineTo(x + size, mark.y);
    context.lineTo(x, mark.y + size);
    context.lineTo(x - size, mark.y);
    context.closePath();
    context.fill();
    context.stroke();
    if (bad) paintOutcome(context, "rejected", x + 11, mark.y, color);
  };
  for (const mark of layout.marks) paintOne(mark, false);
  for (const mark of layout.marks)
    if (mark.message === selected || path.has(mark.message)) paintOne(mark, true);
  context.lineWidth = 1;
}

/** Waiting: thin slanted lines in an outline. */
function hatch(
  context: CanvasRenderingContext2D,
  from: number,
  y: number,
  to: number,
  height: number,
  color: string,
) {
  context.strokeStyle = color;
  context.lineWidth = 1;
  if (height < 6) {
    context.globalAlpha = 0.35;
    context.fillStyle = color;
    context.fillRect(from, y, to - from, height);
    context.globalAlpha = 1;
    return;
  }
  context.save();
  context.beginPath();
  context.rect(from, y, to - from, height);
  context.clip();
  context.globalAlpha = 0.75;
  context.beginPath();
  const begin = Math.floor((from - height) / 5) * 5;
  for (let x = begin; x < to; x += 5) {
    context.moveTo(x, y + height);
    context.lineTo(x + height, y);
  }
  context.stroke();
  context.restore();
  context.strokeRect(from + 0.5, y + 0.5, Math.max(to - from - 1, 0), height - 1);
}

function line(context: CanvasRenderingContext2D, x0: number, y0: number, x1: number, y1: number) {
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}

function round(
  context: CanvasRenderingContext2D,
  x: number,
  y: number,
  width: number,
  height: number,
  radius: number,
) {
  context.beginPath();
  context.roundRect(x, y, Math.max(width, 0), height, Math.max(Math.min(radius, width / 2), 0));
}
