import { describe, expect, it } from "vitest";
import { flow } from "./fixture";
import { buildRows, findFolds, pathTo } from "./model";

const none = { opened: new Set<string>(), filter: "", problemsOnly: false };

describe("order", () => {
  it("puts causes before what they caused, children by time", () => {
    expect(flow([null, 0, 0, 1]).order).toEqual([0, 1, 3, 2]);
  });

  it("survives a circle of causes", () => {
    expect(flow([1, 0]).order.toSorted()).toEqual([0, 1]);
  });

  it("gives the way from the root to a message", () => {
    expect(pathTo(flow([null, 0, 1, 0]), 2)).toEqual([0, 1, 2]);
  });
});

describe("folds", () => {
  const many = flow(
    [null, ...Array.from({ length: 30 }, () => 0)],
    ["Root", ...Array.from({ length: 30 }, () => "Part")],
    [7],
  );

  it("join equal siblings and leave the broken one out", () => {
    const [fold] = findFolds(many).folds;
    expect(fold?.members).toHaveLength(29);
    expect(fold?.failed).toBe(1);
  });

  it("show the root, the fold and the broken one", () => {
    expect(buildRows(many, none).rows.map((row) => row.kind)).toEqual(["message", "fold", "message"]);
  });

  it("open", () => {
    const key = findFolds(many).folds[0]?.key ?? "";
    expect(buildRows(many, { ...none, opened: new Set([key]) }).rows).toHaveLength(32);
  });
});

describe("filters", () => {
  it("prune and count what they hid", () => {
    const { rows, hidden } = buildRows(flow([null, 0, 0], ["A", "B", "A"]), { ...none, filter: "b" });
    expect(rows).toHaveLength(1);
    expect(hidden).toBe(2);
  });

  it("leave only problems", () => {
    const { rows } = buildRows(flow([null, 0, 0], [], [2]), { ...none, problemsOnly: true });
    expect(rows).toMatchObject([{ kind: "message", index: 2 }]);
  });
});
