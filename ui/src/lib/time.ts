// Times and durations as people read them. The API speaks UTC; one switch turns every time on the page,
// also those inside sentences, to the reader's own zone, and the zone is always printed.

export type Zone = "utc" | "local";

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const two = (n: number) => String(n).padStart(2, "0");
const three = (n: number) => String(n).padStart(3, "0");

export const ms = (iso: string) => Date.parse(iso);

function parts(at: number, zone: Zone) {
  const date = new Date(at);
  return zone === "utc"
    ? {
        day: `${date.getUTCFullYear()}-${two(date.getUTCMonth() + 1)}-${two(date.getUTCDate())}`,
        time: `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}:${two(date.getUTCSeconds())}`,
        milli: three(date.getUTCMilliseconds()),
      }
    : {
        day: `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`,
        time: `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`,
        milli: three(date.getMilliseconds()),
      };
}

/** "12:00:03.114" */
export function clock(at: number, zone: Zone, precision: "s" | "ms" = "ms"): string {
  const { time, milli } = parts(at, zone);
  return precision === "ms" ? `${time}.${milli}` : time;
}

export const day = (at: number, zone: Zone) => parts(at, zone).day;

/** "2026-11-21 12:00:03.114" */
export const stamp = (at: number, zone: Zone, precision: "s" | "ms" = "ms") =>
  `${day(at, zone)} ${clock(at, zone, precision)}`;

/** The zone's short name at that time: "UTC", "CET", "GMT+5:30". */
export function zoneName(zone: Zone, at = Date.now()): string {
  if (zone === "utc") return "UTC";
  const name = new Intl.DateTimeFormat("en-GB", { timeZoneName: "short" })
    .formatToParts(at)
    .find((part) => part.type === "timeZoneName")?.value;
  return name ?? "local";
}

/** "35 ms", "1.2 s", "4 min 3 s", "2 h 10 min", "3 d 4 h". A minute is never "m". */
export function duration(span: number): string {
  const length = Math.abs(span);
  if (length < 1) return length === 0 ? "0 ms" : `${length.toFixed(1)} ms`;
  if (length < SECOND) return `${Math.round(length)} ms`;
  if (length < 10 * SECOND) return `${(Math.floor(length / 100) / 10).toFixed(1)} s`;
  if (length < MINUTE) return `${Math.floor(length / SECOND)} s`;
  const [big, small, bigName, smallName] =
    length < HOUR
      ? [MINUTE, SECOND, "min", "s"]
      : length < DAY
        ? [HOUR, MINUTE, "h", "min"]
        : [DAY, HOUR, "d", "h"];
  const rest = Math.floor((length % (big as number)) / (small as number));
  const whole = `${Math.floor(length / (big as number))} ${bigName}`;
  return rest ? `${whole} ${rest} ${smallName}` : whole;
}

/** "just now", "40 s ago", "3 min ago", "2 h ago", "5 d ago" */
export function ago(at: number, now: number): string {
  const span = now - at;
  if (span < 2 * SECOND) return "just now";
  if (span < MINUTE) return `${Math.floor(span / SECOND)} s ago`;
  if (span < HOUR) return `${Math.floor(span / MINUTE)} min ago`;
  if (span < DAY) return `${Math.floor(span / HOUR)} h ago`;
  return `${Math.floor(span / DAY)} d ago`;
}

const CLOCK_IN_TEXT = /\b([01]\d|2[0-3]):([0-5]\d):([0-5]\d)(\.\d{1,6})?\b/g;

/**
 * Sentences come with UTC clock times and without a date. Each is taken as the one nearest to `near`, and
 * said again in the chosen zone.
 */
export function inZone(text: string, near: number, zone: Zone): string {
  if (zone === "utc") return text;
  return text.replace(CLOCK_IN_TEXT, (_all, hours, minutes, seconds, fraction: string | undefined) => {
    const midnight = Math.floor(near / DAY) * DAY;
    let at = midnight + Number(hours) * HOUR + Number(minutes) * MINUTE + Number(seconds) * SECOND;
    if (at - near > DAY / 2) at -= DAY;
    else if (near - at > DAY / 2) at += DAY;
    return clock(at, zone, "s") + (fraction ?? "");
  });
}
