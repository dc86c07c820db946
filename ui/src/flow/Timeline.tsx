// The swim-lane picture of a flow: lane names as text, the rest on one canvas that covers what is in view.
// The canvas is for eyes only; the record list below says the same to everybody.
import {
  type PointerEvent,
  type Ref,
  useCallback,
  useEffect,
  useImperativeHandle,
  useLayoutEffect,
  useMemo,
  useRef,
  useState,
} from "react";
import type { Handling, Message } from "../api/types";
import { isOpenIn, longPlace, nextRead, source } from "../lib/places";
import { clock, duration, ms } from "../lib/time";
import { useSettings, useThemeVersion } from "../settings";
import { AXIS, type Colors, fromScreen, LEFT_ROOM, paint, toScreen, type View } from "./draw";
import { type Bar, eventTimes, layOut, type Pending, rightRoom } from "./lanes";
import { type FlowModel, pathTo } from "./model";
import { buildScale } from "./timescale";

export interface TimelineHandle {
  zoomBy(factor: number): void;
  reset(): void;
  /** The selection first, everything at the second call. */
  fit(): void;
}

interface Props {
  model: FlowModel;
  pending: Pending | null;
  /** Coverage's end: what is open is open until then. */
  until: number | null;
  selected: number | null;
  linear: boolean;
  /** Where to look first in a large flow. */
  breakAt: number | null;
  onSelect(message: number, record: number | null): void;
  ref?: Ref<TimelineHandle>;
}

/** Above this many boxes the picture opens zoomed to the break. */
const LARGE = 250;

export function readColors(): Colors {
  const style = getComputedStyle(document.documentElement);
  const token = (name: string) => style.getPropertyValue(`--${name}`).trim();
  return {
    text: token("text"),
    muted: token("muted"),
    line: token("line"),
    faint: token("connector"),
    bar: token("bar"),
    accent: token("accent"),
    surface: token("surface"),
    gap: token("gap"),
    tone: {
      ok: token("ok"),
      broken: token("broken"),
      late: token("late"),
      waiting: token("waiting"),
      unknown: token("unknown"),
      suspect: token("suspect"),
    },
  };
}

export function Timeline({ model, pending, until, selected, linear, breakAt, onSelect, ref }: Props) {
  const { zone } = useSettings();
  const theme = useThemeVersion();
  const canvas = useRef<HTMLCanvasElement>(null);
  const frame = useRef<HTMLDivElement>(null);
  const scroller = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  const [opened, setOpened] = useState<ReadonlySet<number>>(new Set());
  const [window_, setWindow] = useState({ left: 0, zoom: 1 });
  const [hover, setHover] = useState<{ x: number; y: number } | null>(null);
  const drag = useRef<{ x: number; left: number; moved: boolean } | null>(null);

  useLayoutEffect(() => {
    const element = frame.current;
    if (!element) return;
    const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry?.contentRect.width ?? 0)));
    observer.observe(element);
    setWidth(element.clientWidth);
    return () => observer.disconnect();
  }, []);

  const times = useMemo(() => eventTimes(model, pending, until), [model, pending, until]);
  const room = useMemo(() => rightRoom(model), [model]);
  const pictureWidth = Math.max(width - room - LEFT_ROOM, 200);
  const scale = useMemo(
    () => buildScale(times, { width: pictureWidth, linear, opened }),
    [times, pictureWidth, linear, opened],
  );
  const layout = useMemo(() => layOut(model, scale, pending), [model, scale, pending]);
  const path = useMemo(
    () => new Set(selected === null || layout.bars.length > LARGE ? [] : pathTo(model, selected)),
    [model, selected, layout],
  );
  const view: View = useMemo(() => ({ ...window_, width }), [window_, width]);

  const clamp = useCallback(
    (left: number, zoom: number) => {
      const level = Math.min(Math.max(zoom, 1), 4_000);
      const most = Math.max(0, pictureWidth + (room + LEFT_ROOM - width) / level);
      return { left: Math.min(Math.max(left, 0), most), zoom: level };
    },
    [pictureWidth, width, room],
  );

  const zoomAt = useCallback(
    (factor: number, x: number) =>
      setWindow((before) => {
        const zoom = Math.min(Math.max(before.zoom * factor, 1), 4_000);
        return clamp(fromScreen({ ...before, width: 0 }, x) - (x - LEFT_ROOM) / zoom, zoom);
      }),
    [clamp],
  );

  const extent = useCallback(
    (message: number): [number, number] | null => {
      const own = layout.bars.filter((bar) => bar.message === message);
      const mark = layout.markOf.get(message);
      const xs = [...own.flatMap((bar) => [bar.wait ?? bar.start, bar.end]), ...(mark ? [mark.x] : [])];
      return xs.length ? [Math.min(...xs), Math.max(...xs)] : null;
    },
    [layout],
  );

  const fitTo = useCallback(
    (message: number, share: number) => {
      const range = extent(message);
      if (!range) return;
      const length = Math.max(range[1] - range[0], 0.05);
      const zoom = Math.min(Math.max((width * share) / length, 1), 400);
      // A folded silence before it would fill the view with nothing.
      const silent = scale.segments.findLast((segment) => segment.gap && segment.x1 <= range[0]);
      const centred = (range[0] + range[1]) / 2 - width / zoom / 2;
      const least = silent ? silent.x1 - 48 / zoom : 0;
      setWindow(clamp(Math.max(centred, least), zoom));
    },
    [extent, width, clamp, scale],
  );

  // A large flow opens near its break, once.
  const placed = useRef(false);
  useEffect(() => {
    if (placed.current || width === 0) return;
    placed.current = true;
    if (breakAt !== null && layout.bars.length > LARGE) fitTo(breakAt, 0.06);
    const lowest = layout.bars.find((bar) => bar.message === breakAt);
    const box = scroller.current;
    if (lowest && box && lowest.y + 60 > box.clientHeight)
      box.scrollTop = lowest.y + AXIS - box.clientHeight / 2;
  }, [width, breakAt, layout, fitTo]);

  const fitted = useRef<number | null>(null);
  useImperativeHandle(ref, () => ({
    zoomBy: (factor) => zoomAt(factor, width / 2),
    reset: () => setWindow({ left: 0, zoom: 1 }),
    fit: () => {
      if (selected !== null && fitted.current !== selected) {
        fitted.current = selected;
        fitTo(selected, 0.35);
      } else {
        fitted.current = null;
        setWindow({ left: 0, zoom: 1 });
      }
    },
  }));

  const colors = useMemo(readColors, [theme]);
  useLayoutEffect(() => {
    if (!canvas.current || width === 0) return;
    paint(canvas.current, {
      layout,
      scale,
      view,
      colors,
      zone,
      selected,
      path,
      problems: model.problems,
    });
  }, [layout, scale, view, colors, zone, selected, path, model, width]);

  // The canvas paints with a font that may arrive after it.
  const [, setFonts] = useState(0);
  useEffect(
    () =>
      void document.fonts?.ready
        .then(() => setWindow((before) => ({ ...before })))
        .then(() => setFonts((n) => n + 1)),
    [],
  );

  useEffect(() => {
    const element = canvas.current;
    if (!element) return;
    // Wheel alone scrolls the page; with Ctrl it zooms, sideways it moves.
    const wheel = (event: WheelEvent) => {
      const sideways = event.shiftKey ? event.deltaY : event.deltaX;
      if (event.ctrlKey || event.metaKey) {
        event.preventDefault();
        zoomAt(Math.exp(-event.deltaY / 240), event.offsetX);
      } else if (Math.abs(sideways) > (event.shiftKey ? 0 : Math.abs(event.deltaY))) {
        event.preventDefault();
        setWindow((before) => clamp(before.left + sideways / before.zoom, before.zoom));
      }
    };
    element.addEventListener("wheel", wheel, { passive: false });
    return () => element.removeEventListener("wheel", wheel);
  }, [zoomAt, clamp]);

  const hit = useCallback(
    (x: number, y: number): { message: number; record: number | null; bar: Bar | null } | null => {
      const inside = y - AXIS;
      let nearest: { message: number; record: number | null; bar: Bar | null; off: number } | null = null;
      for (const mark of layout.marks) {
        if (Math.abs(mark.y - inside) > 8) continue;
        const off = Math.abs(toScreen(view, mark.x) - x);
        if (off <= 7 && (!nearest || off < nearest.off))
          nearest = { message: mark.message, record: null, bar: null, off };
      }
      for (const bar of layout.bars) {
        if (inside < bar.y - 2 || inside > bar.y + bar.height + 2) continue;
        const from = toScreen(view, bar.wait ?? bar.start) - 2;
        const to = Math.max(toScreen(view, bar.end), toScreen(view, bar.start) + 3) + 14;
        if (x < from || x > to) continue;
        const off = x < from + 4 ? 4 : 1;
        if (!nearest || off <= nearest.off) nearest = { message: bar.message, record: bar.deliver, bar, off };
      }
      return nearest;
    },
    [layout, view],
  );

  const gapAt = (x: number, y: number) =>
    y < AXIS
      ? scale.segments.find((one) => one.gap && x >= toScreen(view, one.x0) && x <= toScreen(view, one.x1))
      : undefined;

  const move = (event: PointerEvent<HTMLCanvasElement>) => {
    const { offsetX: x, offsetY: y } = event.nativeEvent;
    const held = drag.current;
    if (held) {
      if (Math.abs(x - held.x) > 3) held.moved = true;
      if (held.moved) setWindow((before) => clamp(held.left - (x - held.x) / before.zoom, before.zoom));
    }
    setHover({ x, y });
  };
  const release = (event: PointerEvent<HTMLCanvasElement>) => {
    const held = drag.current;
    drag.current = null;
    if (!held || held.moved) return;
    const { offsetX: x, offsetY: y } = event.nativeEvent;
    const gap = gapAt(x, y);
    if (gap) {
      setOpened((before) => new Set([...before, gap.t0]));
      return;
    }
    const found = hit(x, y);
    if (found) onSelect(found.message, found.record);
  };

  const pointed = hover && !drag.current?.moved ? hit(hover.x, hover.y) : null;
  const gap = hover ? gapAt(hover.x, hover.y) : undefined;
  return (
    // What scrolls must be reached by keys.
    <section
      className="timeline"
      ref={scroller}
      aria-label="Timeline; the list below says the same"
      tabIndex={0}
    >
      <div className="lane-names" aria-hidden="true" style={{ height: layout.height + AXIS }}>
        {layout.lanes.map((lane) => (
          <div
            key={lane.name}
            className={lane.place ? "place" : ""}
            style={{ top: lane.y + AXIS, height: lane.height }}
          >
            <span title={lane.name}>{lane.name}</span>
          </div>
        ))}
      </div>
      <div className="lane-canvas" ref={frame}>
        <canvas
          ref={canvas}
          aria-hidden="true"
          style={{
            width,
            height: layout.height + AXIS,
            cursor: pointed || gap ? "pointer" : view.zoom > 1 ? "grab" : "default",
          }}
          onPointerDown={(event) => {
            event.currentTarget.setPointerCapture(event.pointerId);
            drag.current = { x: event.nativeEvent.offsetX, left: view.left, moved: false };
          }}
          onPointerMove={move}
          onPointerUp={release}
          onPointerLeave={() => setHover(null)}
          onDoubleClick={(event) => zoomAt(2.5, event.nativeEvent.offsetX)}
        />
        {hover && (
          // Beside the canvas, so that moving the pointer paints nothing again.
          <div
            className="cursor"
            aria-hidden="true"
            style={{ left: hover.x, height: layout.height + AXIS - 4 }}
          >
            <span
              style={{ translate: `${-Math.min(Math.max(hover.x + 44 - width, 44), 88)}px` }}
              className="num"
            >
              {clock(scale.unproject(fromScreen(view, hover.x)), zone)}
            </span>
          </div>
        )}
        {hover && pointed && (
          <Tip
            model={model}
            x={hover.x}
            y={hover.y}
            width={width}
            height={layout.height + AXIS}
            {...pointed}
          />
        )}
        {hover && gap && (
          <div className="tip" style={{ left: Math.min(hover.x + 12, width - 230), top: AXIS + 4 }}>
            Nothing happened for {duration(gap.t1 - gap.t0)}. Click to show it in full.
          </div>
        )}
      </div>
    </section>
  );
}

interface TipProps {
  model: FlowModel;
  x: number;
  y: number;
  width: number;
  height: number;
  message: number;
  record: number | null;
}

function Tip({ model, x, y, width, height, message: index, record }: TipProps) {
  const { zone } = useSettings();
  const message = model.detail.messages[index];
  if (!message) return null;
  const handling = record === null ? undefined : message.handlings.find((one) => one.deliver === record);
  const published = message.published_at ? ms(message.published_at) : null;
  // Never over the edge of what scrolls, where it would be cut off.
  const side = x > width - 300 ? { right: width - x + 12 } : { left: x + 14 };
  const style = y > height / 2 ? { ...side, bottom: height - y + 10 } : { ...side, top: y + 14 };
  return (
    <div className="tip" style={style}>
      <b>{message.event_type ?? "message"}</b>
      {published !== null && (
        <div>
          {message.publisher} published it at {clock(published, zone)}
          {message.publish_outcome ? `, ${message.publish_outcome}` : ""}
          <div>{longPlace(message)}</div>
        </div>
      )}
      {handling && (
        <>
          {published !== null && !handling.redelivered && (
            <div>
              waited {duration(ms(handling.delivered_at) - published)} in {source(handling)}
            </div>
          )}
          <div>
            {handling.service} {end(message, handling)}
          </div>
        </>
      )}
      {message.handlings.length === 0 && <div>nobody received it</div>}
    </div>
  );
}

function end(message: Message, handling: Handling): string {
  if (handling.settled_at) return `${handling.outcome} it after ${duration((handling.took_us ?? 0) / 1000)}`;
  if (isOpenIn(message, handling)) return "is still handling it";
  if (nextRead(message, handling)) return "received it, and once more later";
  return handling.outcome ? `${handling.outcome} it` : "read it";
}
