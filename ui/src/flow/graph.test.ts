import { describe, expect, it } from "vitest";
import { flow } from "./fixture";
import { layOutGraph, NODE } from "./graph";

describe("graph", () => {
  it("sets effects right of their cause, the cause in their middle", () => {
    const { nodes } = layOutGraph(flow([null, 0, 0]), new Set());
    expect(nodes.map((node) => node.x)).toEqual([
      0,
      NODE.width + NODE.columnGap,
      NODE.width + NODE.columnGap,
    ]);
    expect(nodes[0]?.y).toBe(((nodes[1]?.y ?? 0) + (nodes[2]?.y ?? 0)) / 2);
  });

  it("never puts two boxes on one place", () => {
    const causes = [null, ...Array.from({ length: 60 }, (_, i) => Math.floor(i / 3))];
    const { nodes } = layOutGraph(flow(causes), new Set());
    for (const a of nodes)
      for (const b of nodes)
        if (a !== b && a.x === b.x) expect(Math.abs(a.y - b.y)).toBeGreaterThanOrEqual(NODE.height);
  });

  it("makes one box of 500 equal siblings and what they caused", () => {
    const causes = [
      null,
      ...Array.from({ length: 500 }, () => 0),
      ...Array.from({ length: 500 }, (_, i) => i + 1),
    ];
    const types = causes.map((_, i) => (i === 0 ? "Root" : i <= 500 ? "Part" : "Done"));
    expect(layOutGraph(flow(causes, types), new Set()).nodes).toHaveLength(2);
  });
});
