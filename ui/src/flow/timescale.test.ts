import { describe, expect, it } from "vitest";
import { buildScale, findGaps, tickStep } from "./timescale";

const second = 1000;
const hour = 3_600_000;

describe("gaps", () => {
  it("folds a long silence and leaves the short pauses of work", () => {
    expect(findGaps([0, 40, 90, 300, 2 * hour, 2 * hour + 200])).toEqual([3]);
  });

  it("folds nothing when all happens within a second", () => {
    expect(findGaps([0, 10, 400, 700])).toEqual([]);
  });

  it("folds silences of one length together or not at all", () => {
    const bursts = Array.from({ length: 20 }, (_, i) => [i * hour, i * hour + 10]).flat();
    expect(findGaps(bursts)).toHaveLength(19);
  });
});

describe("scale", () => {
  const times = [0, 100, 200, hour, hour + 200];
  const scale = buildScale(times, { width: 1000 });

  it("fills its width from the first to the last time", () => {
    expect(scale.project(0)).toBe(0);
    expect(scale.project(hour + 200)).toBeCloseTo(1000);
  });

  it("never goes back", () => {
    let before = -1;
    for (let time = 0; time <= hour + 200; time += 2_503) {
      const x = scale.project(time);
      expect(x).toBeGreaterThanOrEqual(before);
      before = x;
    }
  });

  it("finds back the time of every position", () => {
    for (const time of [0, 37, 199, hour / 2, hour + 3])
      expect(scale.unproject(scale.project(time))).toBeCloseTo(time, 3);
  });

  it("gives the same time the same width everywhere but in gaps", () => {
    const early = scale.project(150) - scale.project(50);
    const late = scale.project(hour + 150) - scale.project(hour + 50);
    expect(early).toBeCloseTo(late);
  });

  it("opens a gap on request, and all of them when linear", () => {
    expect(scale.segments.filter((segment) => segment.gap)).toHaveLength(1);
    expect(buildScale(times, { width: 1000, opened: new Set([200]) }).segments).toHaveLength(1);
    expect(buildScale(times, { width: 1000, linear: true }).segments).toHaveLength(1);
  });

  it("holds for a single time and for none", () => {
    expect(Number.isFinite(buildScale([5], { width: 300 }).project(5))).toBe(true);
    expect(Number.isFinite(buildScale([], { width: 300 }).project(5))).toBe(true);
  });

  it("takes 10 000 times in a few milliseconds", () => {
    const many = Array.from({ length: 10_000 }, (_, i) => i * 13 + (i > 5000 ? hour : 0));
    const started = performance.now();
    const big = buildScale(many, { width: 1600 });
    for (const time of many) big.project(time);
    expect(performance.now() - started).toBeLessThan(100);
  });
});

describe("ticks", () => {
  it("are round and far enough apart", () => {
    expect(tickStep(1, 90)).toBe(100);
    expect(tickStep(0.09, 90)).toBe(second);
    expect(tickStep(0.001, 90)).toBe(120_000);
  });
});
