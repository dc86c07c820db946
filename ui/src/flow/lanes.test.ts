import { describe, expect, it } from "vitest";
import type { Handling, Message, Verdict } from "../api/types";
import { at, flow } from "./fixture";
import { eventTimes, laneNames, layOut, pendingOf } from "./lanes";
import type { FlowModel } from "./model";
import { buildScale } from "./timescale";

const handled = (service: string, from: number, to: number | null, more: Partial<Handling> = {}) =>
  ({
    deliver: null,
    service,
    subscription: `${service}.work`,
    delivered_at: at(from),
    settled_at: to === null ? null : at(to),
    outcome: to === null ? null : "acked",
    attempt: null,
    redelivered: false,
    system: "rabbitmq",
    ...more,
  }) as unknown as Handling;

/** Message 0 of shop with these handlings. */
function withHandlings(...handlings: Handling[]): FlowModel {
  const model = flow([null]);
  (model.detail.messages[0] as Message).handlings = handlings;
  return model;
}

const scale = buildScale(
  [0, 100].map((i) => Date.parse(at(i))),
  { width: 1000 },
);
const barsOf = (model: FlowModel) => layOut(model, scale, null).bars;

describe("lanes", () => {
  it("are one a service, in the order in which they took part", () => {
    const model = withHandlings(handled("stock", 20, 30), handled("billing", 10, 30));
    expect(laneNames(model, null).map(({ name }) => name)).toEqual(["shop", "billing", "stock"]);
  });

  it("end with a place where something waits that nobody was seen to take", () => {
    const model = flow([null], [], [0]);
    (model.detail.messages[0] as Message).destination = "orders";
    expect(laneNames(model, null)).toMatchObject([
      { name: "shop", place: false },
      { name: "not delivered: orders", place: true },
    ]);
    const [bar] = barsOf(model);
    expect(bar).toMatchObject({ undelivered: true, open: true, wait: 0, start: 1000, lane: 1 });
  });

  it("lie below each other", () => {
    const { lanes, height } = layOut(withHandlings(handled("stock", 20, 30)), scale, null);
    expect(lanes[1]?.y).toBe(lanes[0]?.height);
    expect(height).toBe((lanes[1]?.y ?? 0) + (lanes[1]?.height ?? 0));
  });
});

describe("bars", () => {
  it("wait from the publish, and are handled until the settle", () => {
    expect(barsOf(withHandlings(handled("stock", 20, 30)))).toMatchObject([
      { wait: 0, start: 200, end: 300, open: false },
    ]);
  });

  it("wait from where the first delivery gave the message back", () => {
    const again = handled("stock", 50, 60, { redelivered: true, attempt: 2 });
    const bars = barsOf(withHandlings(handled("stock", 20, 30, { outcome: "requeued" }), again));
    expect(bars[1]).toMatchObject({ wait: 300, start: 500, label: "T0, try 2" });
  });

  it("go on to the end of the picture while they are open", () => {
    expect(barsOf(withHandlings(handled("stock", 20, null)))).toMatchObject([{ open: true, end: 1000 }]);
  });

  it("do not cover each other", () => {
    const parallel = Array.from({ length: 6 }, (_, i) => handled("stock", 10 + i, 90));
    const bars = barsOf(withHandlings(...parallel));
    const tops = bars.map((bar) => bar.y).toSorted((a, b) => a - b);
    for (const [i, y] of tops.slice(1).entries())
      expect(y).toBeGreaterThanOrEqual((tops[i] as number) + (bars[0]?.height as number));
  });

  it("share rows when there are more than a lane has room for", () => {
    const parallel = Array.from({ length: 200 }, () => handled("stock", 10, 90));
    const rows = new Set(barsOf(withHandlings(...parallel)).map((bar) => bar.y));
    expect(rows.size).toBe(32);
  });
});

describe("what waits", () => {
  const verdict = (state: string, place: object | null) =>
    ({ state, message: 0, place }) as unknown as Verdict;
  const queue = { system: "rabbitmq", subscription: "stock.work", destination: "orders" };

  it("is read from the verdict", () => {
    const { messages } = flow([null]).detail;
    expect(pendingOf(verdict("late", queue), messages)).toEqual({
      message: 0,
      place: "queue stock.work",
      late: true,
    });
    expect(pendingOf(verdict("unknown", { ...queue, subscription: null }), messages)?.place).toBe(
      "exchange orders",
    );
    expect(pendingOf(verdict("healthy", queue), messages)).toBeNull();
  });

  it("waits nowhere once it was seen there", () => {
    const { messages } = withHandlings(handled("stock", 20, null)).detail;
    expect(pendingOf(verdict("late", queue), messages)).toBeNull();
  });

  it("makes the picture go on until now", () => {
    const now = Date.parse(at(5_000));
    const closed = withHandlings(handled("stock", 20, 30));
    expect(eventTimes(closed, null, now).at(-1)).not.toBe(now);
    expect(eventTimes(withHandlings(handled("stock", 20, null)), null, now).at(-1)).toBe(now);
  });
});
