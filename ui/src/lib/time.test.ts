import { describe, expect, it } from "vitest";
import { ago, clock, duration, inZone, ms, stamp } from "./time";

const noon = ms("2026-11-21T12:00:03.114000Z");

describe("times", () => {
  it("are fixed in width", () => {
    expect(stamp(noon, "utc")).toBe("2026-11-21 12:00:03.114");
    expect(clock(ms("2026-11-21T02:03:04.005000Z"), "utc")).toBe("02:03:04.005");
  });

  it("in sentences stay as they are in UTC", () => {
    expect(inZone("since 12:00:03.114", noon, "utc")).toBe("since 12:00:03.114");
  });

  it("in sentences are said in the reader's zone, digits after the second kept", () => {
    const local = clock(noon, "local", "s");
    expect(inZone("received at 12:00:03.114 and 12:00:03", noon, "local")).toBe(
      `received at ${local}.114 and ${local}`,
    );
  });
});

describe("durations", () => {
  it.each([
    [0, "0 ms"],
    [0.4, "0.4 ms"],
    [35, "35 ms"],
    [1240, "1.2 s"],
    [9999, "9.9 s"],
    [41_900, "41 s"],
    [243_000, "4 min 3 s"],
    [7_800_000, "2 h 10 min"],
    [7_200_000, "2 h"],
    [273_600_000, "3 d 4 h"],
  ])("%d ms is %s", (span, text) => expect(duration(span)).toBe(text));

  it("tell how long ago", () => {
    expect(ago(noon - 500, noon)).toBe("just now");
    expect(ago(noon - 190_000, noon)).toBe("3 min ago");
  });
});
