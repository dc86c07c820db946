// A piecewise-linear time scale: time in which nothing happens is folded to a narrow strip that says how
// long it was; everywhere else one pixel is the same time. Input: the times at which something happened.
// Output: positions in pixels of the unzoomed picture.

export interface Segment {
  t0: number;
  t1: number;
  x0: number;
  x1: number;
  /** Nothing happened in here, and it is drawn narrower than it was. */
  gap: boolean;
}

export interface TimeScale {
  segments: Segment[];
  width: number;
  project(time: number): number;
  unproject(x: number): number;
}

export interface ScaleOptions {
  width: number;
  /** Fold nothing. */
  linear?: boolean;
  /** Start times of gaps that the reader opened. */
  opened?: ReadonlySet<number>;
}

export const GAP_WIDTH = 64;
/** Shorter silences are part of the work. */
const SHORTEST_GAP = 500;
/** A silence is folded when it is longer than this part of all the time that stays. */
const GAP_SHARE = 0.12;
const SMALLEST_SEGMENT = 28;
const MOST_GAPS = 24;

/**
 * The gaps worth folding, as indexes into `times` (sorted): the silence after times[i]. Silences of about one
 * length are folded together or not at all, the longest first.
 */
export function findGaps(times: readonly number[]): number[] {
  const pauses = times.slice(1).map((time, i) => time - (times[i] as number));
  const usual = pauses.toSorted((a, b) => a - b)[Math.floor(pauses.length / 4)] ?? 0;
  const silences = pauses
    .map((length, index) => ({ index, length }))
    .filter(({ length }) => length >= SHORTEST_GAP)
    .sort((a, b) => b.length - a.length);

  let remaining = (times.at(-1) ?? 0) - (times[0] ?? 0);
  let taken = 0;
  while (taken < silences.length) {
    const longest = silences[taken]?.length ?? 0;
    let end = taken;
    let together = 0;
    while (end < silences.length && (silences[end]?.length ?? 0) >= longest / 2) {
      together += silences[end]?.length ?? 0;
      end++;
    }
    const dominates = longest > GAP_SHARE * remaining;
    const bursts = together > 0.5 * remaining && longest > 20 * usual;
    if (end > MOST_GAPS || !(dominates || bursts)) break;
    remaining -= together;
    taken = end;
  }
  return silences
    .slice(0, taken)
    .map(({ index }) => index)
    .sort((a, b) => a - b);
}

export function buildScale(times: readonly number[], { width, linear, opened }: ScaleOptions): TimeScale {
  const first = times[0] ?? 0;
  const last = Math.max(times.at(-1) ?? 0, first + 1);
  const gaps = linear ? [] : findGaps(times).filter((i) => !opened?.has(times[i] as number));

  const cuts: { t0: number; t1: number; gap: boolean }[] = [];
  let from = first;
  for (const index of gaps) {
    cuts.push({ t0: from, t1: times[index] as number, gap: false });
    cuts.push({ t0: times[index] as number, t1: times[index + 1] as number, gap: true });
    from = times[index + 1] as number;
  }
  cuts.push({ t0: from, t1: last, gap: false });

  const gapWidth = Math.min(GAP_WIDTH, (width * 0.5) / Math.max(gaps.length, 1));
  const forWork = width - gaps.length * gapWidth;
  const widths = shareOut(
    cuts.filter((cut) => !cut.gap).map((cut) => cut.t1 - cut.t0),
    forWork,
  );

  const segments: Segment[] = [];
  let x = 0;
  let work = 0;
  for (const cut of cuts) {
    const x1 = x + (cut.gap ? gapWidth : (widths[work++] as number));
    segments.push({ ...cut, x0: x, x1 });
    x = x1;
  }
  return {
    segments,
    width: x,
    project: (time) => project(segments, time),
    unproject: (position) => unproject(segments, position),
  };
}

/** Shares `total` pixels out by length, none below the smallest. */
function shareOut(lengths: number[], total: number): number[] {
  const least = Math.min(SMALLEST_SEGMENT, total / lengths.length);
  const widths = new Array<number>(lengths.length).fill(0);
  let open = lengths.map((_, i) => i);
  let left = total;
  for (;;) {
    const sum = open.reduce((all, i) => all + (lengths[i] as number), 0);
    const small = open.filter((i) => (sum ? ((lengths[i] as number) / sum) * left : left) < least);
    if (!small.length || small.length === open.length) {
      for (const i of open) widths[i] = sum ? ((lengths[i] as number) / sum) * left : left / open.length;
      return widths;
    }
    for (const i of small) widths[i] = least;
    left -= least * small.length;
    open = open.filter((i) => !small.includes(i));
  }
}

function project(segments: Segment[], time: number): number {
  let low = 0;
  let high = segments.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (time > (segments[middle] as Segment).t1) low = middle + 1;
    else high = middle;
  }
  const { t0, t1, x0, x1 } = segments[low] as Segment;
  return t1 === t0 ? x0 : x0 + ((time - t0) / (t1 - t0)) * (x1 - x0);
}

function unproject(segments: Segment[], x: number): number {
  const found = segments.find((segment) => x <= segment.x1) ?? (segments.at(-1) as Segment);
  const { t0, t1, x0, x1 } = found;
  return x1 === x0 ? t0 : t0 + ((x - x0) / (x1 - x0)) * (t1 - t0);
}

const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 15e3, 3e4, 6e4, 12e4, 3e5, 6e5, 9e5];
const LONG_STEPS = [18e5, 36e5, 72e5, 216e5, 432e5, 864e5];

/** A round step in ms such that two ticks are at least `room` pixels apart at `scale` pixels per ms. */
export function tickStep(scale: number, room: number): number {
  const wanted = room / scale;
  const step = [...STEPS, ...LONG_STEPS].find((candidate) => candidate >= wanted);
  return step ?? Math.ceil(wanted / 864e5) * 864e5;
}
