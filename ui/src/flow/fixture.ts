// A flow for unit tests: message i was published i ms after noon, caused by message causes[i].
import type { Edge, HistoryRecord, Message } from "../api/types";
import { buildModel } from "./model";

/** So many milliseconds after noon. */
export const at = (i: number) => new Date(Date.UTC(2026, 10, 21, 12, 0, 0, i)).toISOString();

export function flow(causes: (number | null)[], types: string[] = [], broken: number[] = []) {
  const records: HistoryRecord[] = causes.map((_, i) => ({
    boot: "b",
    seq: i,
    agent: "a",
    at: at(i),
    kind: "publish",
    service: "shop",
  }));
  const messages = causes.map((_, index) => ({
    index,
    event_type: types[index] ?? `T${index}`,
    publisher: "shop",
    published_at: at(index),
    publish_outcome: "confirmed",
    handlings: [],
    keys: [],
    records: [index],
    state: broken.includes(index) ? "broken" : "healthy",
  })) as unknown as Message[];
  const edges: Edge[] = causes.flatMap((from, to) =>
    from === null ? [] : [{ from, to, how: "causation" as const, by: null }],
  );
  return buildModel({ messages, edges, records });
}
