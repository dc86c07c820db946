// Where everything of a flow stands in the swim-lane picture: one lane a service, in it a strip with its
// publishes and rows with its handlings, each with the wait before it. Input: the flow and a time scale.
// Output: plain boxes in pixels of the unzoomed picture, which draw.ts paints and Timeline.tsx finds again.
import type { Message, Verdict } from "../api/types";
import { isKafka, isOpenIn, nextRead } from "../lib/places";
import { ms } from "../lib/time";
import { type Tone, toneIn, toneOfOutcome } from "../lib/words";
import type { FlowModel } from "./model";
import { startOf } from "./model";
import type { TimeScale } from "./timescale";

export interface Mark {
  message: number;
  lane: number;
  x: number;
  y: number;
  tone: Tone;
  /** The broker's answer was seen. */
  answered: boolean;
}

export interface Bar {
  message: number;
  /** Index of the deliver record. */
  deliver: number | null;
  /** Nobody was seen to receive it: all of it is waiting. */
  undelivered: boolean;
  lane: number;
  y: number;
  height: number;
  /** Waiting from here ... */
  wait: number | null;
  /** ... handled from here to the end. */
  start: number;
  end: number;
  tone: Tone;
  outcome: string | null;
  open: boolean;
  label: string;
}

export interface Lane {
  name: string;
  /** A place where something waits, not a service. */
  place: boolean;
  y: number;
  height: number;
}

/** What the verdict says is waiting, though others may have received the message. */
export interface Pending {
  message: number;
  place: string;
  late: boolean;
}

/** Reads from the verdict what waits where; null when the delivery it speaks of was seen. */
export function pendingOf(verdict: Verdict, messages: Message[]): Pending | null {
  const { message: index, place, state } = verdict;
  const message = index === null ? undefined : messages[index];
  if (!message || !place || state === "healthy" || state === "broken") return null;
  const { subscription, destination } = place;
  if (subscription && message.handlings.some((handling) => handling.subscription === subscription))
    return null;
  const [here, there] = isKafka(place) ? ["group", "topic"] : ["queue", "exchange"];
  const name = subscription ? `${here} ${subscription}` : `${there} ${destination || "(default)"}`;
  return { message: message.index, place: name, late: state === "late" };
}

export interface Layout {
  lanes: Lane[];
  marks: Mark[];
  bars: Bar[];
  markOf: Map<number, Mark>;
  height: number;
}

const STRIP = 16;
const PAD = 7;
const ROW_ROOM = 96;
const MOST_ROWS = 32;
/** In small flows bars carry their event type, and rows are given room for it. */
const LABELS_UP_TO = 80;
const LETTER = 6.1;

/** All the times at which something happened, sorted; `until` when something is still open. */
export function eventTimes(model: FlowModel, pending: Pending | null, until: number | null): number[] {
  const times = model.detail.records.map((record) => ms(record.at));
  for (const message of model.detail.messages) if (message.published_at) times.push(ms(message.published_at));
  times.sort((a, b) => a - b);
  const last = times.at(-1) ?? 0;
  if (until !== null && until > last && hasOpenEnd(model, pending)) times.push(until);
  return times;
}

const waits = (message: Message) =>
  message.handlings.length === 0 &&
  toneOfOutcome(message.publish_outcome) !== "broken" &&
  message.state !== null &&
  message.state !== "healthy";

const hasOpenEnd = (model: FlowModel, pending: Pending | null) =>
  pending !== null ||
  model.detail.messages.some(
    (message) => waits(message) || message.handlings.some((handling) => isOpenIn(message, handling)),
  );

const placeOf = (message: Message) => {
  const where = message.destination || message.routing_key || "somewhere";
  return `not delivered: ${where}`;
};

export function laneNames(model: FlowModel, pending: Pending | null): { name: string; place: boolean }[] {
  const seen = new Map<string, { name: string; place: boolean; at: number }>();
  const note = (name: string, place: boolean, at: number) => {
    const known = seen.get(name);
    if (!known || at < known.at) seen.set(name, { name, place, at });
  };
  for (const message of model.detail.messages) {
    const start = startOf(message, model.detail.records);
    if (message.publisher) note(message.publisher, false, start);
    for (const handling of message.handlings) note(handling.service ?? "?", false, ms(handling.delivered_at));
    if (pending?.message === message.index) note(pending.place, true, start);
    else if (waits(message)) note(placeOf(message), true, start);
  }
  return [...seen.values()].sort((a, b) => Number(a.place) - Number(b.place) || a.at - b.at);
}

/** Pixels right of the picture for the names of what ends last. */
export function rightRoom(model: FlowModel): number {
  if (model.detail.messages.length > LABELS_UP_TO) return 28;
  const longest = Math.max(
    0,
    ...model.detail.messages.map(
      (message) =>
        (message.event_type?.length ?? 7) + (message.handlings.some((one) => (one.attempt ?? 1) > 1) ? 7 : 0),
    ),
  );
  return Math.min(longest * LETTER + 34, 220);
}

export function layOut(model: FlowModel, scale: TimeScale, pending: Pending | null): Layout {
  const names = laneNames(model, pending);
  const laneOf = new Map(names.map(({ name }, i) => [name, i]));
  const { messages, records } = model.detail;
  const labelled = messages.length <= LABELS_UP_TO;

  const bars: Bar[] = [];
  const marks: Mark[] = [];
  for (const message of messages) {
    const published = message.published_at ? scale.project(ms(message.published_at)) : null;
    const label = message.event_type ?? "message";
    if (message.publisher && published !== null)
      marks.push({
        message: message.index,
        lane: laneOf.get(message.publisher) as number,
        x: published,
        y: 0,
        tone: message.publish_outcome ? toneIn(message, message.publish_outcome) : "ok",
        answered: message.publish_outcome !== null,
      });
    let attempts = 0;
    for (const handling of message.handlings) {
      const start = scale.project(ms(handling.delivered_at));
      // A second delivery waits from where the first gave it back, not from the publish.
      const before = attempts++ ? lastSettleBefore(message, handling.delivered_at, handling.service) : null;
      const open = isOpenIn(message, handling);
      const end = handling.settled_at ?? nextRead(message, handling)?.delivered_at;
      // A group takes a record again from its log, where it waited for nobody.
      const again = isKafka(handling) && handling.redelivered === true && before === null;
      bars.push({
        message: message.index,
        deliver: handling.deliver,
        undelivered: false,
        lane: laneOf.get(handling.service ?? "?") as number,
        y: 0,
        height: 0,
        wait: before !== null ? scale.project(before) : again ? start : published,
        start,
        end: open ? scale.width : end ? scale.project(ms(end)) : start,
        tone: toneIn(message, handling.outcome),
        outcome: handling.outcome,
        open,
        label: handling.attempt && handling.attempt > 1 ? `${label}, try ${handling.attempt}` : label,
      });
    }
    const held = pending?.message === message.index ? pending : null;
    if (held || waits(message)) {
      const from = published ?? scale.project(startOf(message, records));
      bars.push({
        message: message.index,
        deliver: null,
        undelivered: true,
        lane: laneOf.get(held?.place ?? placeOf(message)) as number,
        y: 0,
        height: 0,
        wait: from,
        start: scale.width,
        end: scale.width,
        tone: held?.late || message.state === "late" ? "late" : "unknown",
        outcome: null,
        open: true,
        label,
      });
    }
  }

  const rows = packRows(bars, names.length, labelled, scale.width);
  const lanes: Lane[] = [];
  let y = 0;
  for (const [i, { name, place }] of names.entries()) {
    const count = rows.counts[i] as number;
    const pitch = rowPitch(count);
    const height = Math.max(STRIP + Math.max(count, 1) * pitch + PAD, place ? 46 : 0);
    lanes.push({ name, place, y, height });
    y += height;
  }
  for (const mark of marks) mark.y = (lanes[mark.lane] as Lane).y + STRIP / 2 + 1;
  for (const [i, bar] of bars.entries()) {
    const pitch = rowPitch(rows.counts[bar.lane] as number);
    bar.y = (lanes[bar.lane] as Lane).y + STRIP + (rows.row[i] as number) * pitch;
    bar.height = Math.max(pitch - (pitch > 8 ? 5 : 1), 1.5);
  }
  const markOf = new Map<number, Mark>();
  for (const mark of marks) if (!markOf.has(mark.message)) markOf.set(mark.message, mark);
  return { lanes, marks, bars, markOf, height: y };
}

function lastSettleBefore(message: Message, deliveredAt: string, service: string | null): number | null {
  let last: string | null = null;
  for (const { settled_at, service: by } of message.handlings)
    if (by === service && settled_at && settled_at <= deliveredAt && (!last || settled_at > last))
      last = settled_at;
  return last ? ms(last) : null;
}

const rowPitch = (rows: number) => (rows <= 4 ? 17 : Math.max(ROW_ROOM / rows, 3));

/** First row that is free, per lane; past MOST_ROWS rows are shared. */
function packRows(bars: Bar[], lanes: number, labelled: boolean, width: number) {
  const order = bars.map((_, i) => i).sort((a, b) => left(bars[a]) - left(bars[b]));
  const ends: number[][] = Array.from({ length: lanes }, () => []);
  const row = new Array<number>(bars.length).fill(0);
  for (const i of order) {
    const bar = bars[i] as Bar;
    const taken = ends[bar.lane] as number[];
    const from = left(bar);
    const room = labelled ? bar.label.length * LETTER + 34 : 4;
    let free = taken.findIndex((end) => end <= from);
    if (free < 0) {
      free = taken.length < MOST_ROWS ? taken.length : indexOfLeast(taken);
    }
    taken[free] = Math.min(bar.end + room, width + room);
    row[i] = free;
  }
  return { row, counts: ends.map((taken) => taken.length) };
}

const left = (bar: Bar | undefined) => (bar ? (bar.wait ?? bar.start) : 0);

function indexOfLeast(values: number[]): number {
  let least = 0;
  for (const [i, value] of values.entries()) if (value < (values[least] as number)) least = i;
  return least;
}
