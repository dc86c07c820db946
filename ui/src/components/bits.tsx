// Small parts that every page uses.
import { Link } from "@tanstack/react-router";
import { type ReactNode, useEffect, useRef, useState } from "react";
import { ApiError } from "../api/client";
import type { Coverage } from "../api/types";
import { ago, clock, inZone, ms, stamp, zoneName } from "../lib/time";
import { useNow, useSettings } from "../settings";

export function CopyButton({
  text,
  children,
  title,
}: {
  text: () => string;
  children: ReactNode;
  title?: string;
}) {
  const [done, setDone] = useState(false);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => () => clearTimeout(timer.current), []);
  const copy = async () => {
    await copyText(text());
    setDone(true);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setDone(false), 1_500);
  };
  return (
    <button type="button" className="button" onClick={copy} title={title}>
      {done ? "Copied" : children}
    </button>
  );
}

async function copyText(text: string) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Over plain http on another host there is no clipboard; the old way still works there.
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

/** A value that one click copies. */
export function Copyable({ value, shown }: { value: string; shown?: string }) {
  const [done, setDone] = useState(false);
  return (
    <button
      type="button"
      className="copyable mono"
      title={`Copy ${value}`}
      onClick={() => {
        void copyText(value);
        setDone(true);
        setTimeout(() => setDone(false), 1_200);
      }}
    >
      <span className="value">{shown ?? value}</span>
      <span className="hint">{done ? "copied" : "copy"}</span>
    </button>
  );
}

/** Up to when, and for how many sidecars, Flowtap saw everything. */
export function CoverageBadge({ coverage }: { coverage: Coverage | undefined }) {
  const { zone } = useSettings();
  if (!coverage) return <span className="coverage loading">coverage …</span>;
  const whole = coverage.total > 0 && coverage.live === coverage.total && !coverage.stale;
  const near = coverage.complete_to ? ms(coverage.complete_to) : Date.now();
  return (
    <Link
      to="/agents"
      className={`coverage ${whole ? "whole" : "partial"}`}
      title={`${coverage.sentence}. ${silentTitle(coverage)}`}
    >
      <svg viewBox="0 0 12 12" width="12" height="12" aria-hidden="true" className="glyph">
        <circle cx="6" cy="6" r="4.6" strokeDasharray={whole ? undefined : "2.4 2"} />
        {whole && <circle cx="6" cy="6" r="1.8" className="solid" />}
      </svg>
      <span>
        {inZone(coverage.sentence, near, zone)} <span className="muted">{zoneName(zone, near)}</span>
      </span>
    </Link>
  );
}

const silentTitle = (coverage: Coverage) =>
  coverage.silent.length
    ? `Silent: ${coverage.silent.map((one) => one.agent).join(", ")}`
    : "Which sidecars are seen, and since when";

export function When({
  at,
  precision = "ms",
  relative,
}: {
  at: string;
  precision?: "s" | "ms";
  relative?: boolean;
}) {
  const { zone } = useSettings();
  const now = useNow();
  const time = ms(at);
  return (
    <time dateTime={at} title={`${stamp(time, zone)} ${zoneName(zone, time)}`} className="num">
      {clock(time, zone, precision)}
      {relative && <span className="muted"> {ago(time, now)}</span>}
    </time>
  );
}

/** Says that what is shown is old, and why; the data stays. */
export function StaleNote({ error, since }: { error: unknown; since: number }) {
  const { zone } = useSettings();
  if (!error) return null;
  return (
    <div className="stale" role="status">
      <b>
        Stale since {clock(since, zone, "s")} {zoneName(zone)}
      </b>
      <span>{messageOf(error)}</span>
    </div>
  );
}

export const messageOf = (error: unknown) =>
  error instanceof ApiError || error instanceof Error ? error.message : String(error);

export function Failure({ error, retry }: { error: unknown; retry: () => void }) {
  return (
    <div className="notice" role="alert">
      <h2>No answer</h2>
      <p>{messageOf(error)}</p>
      <button type="button" className="button" onClick={retry}>
        Ask again
      </button>
    </div>
  );
}

export function Segmented<T extends string>({
  label,
  value,
  options,
  onChange,
}: {
  label: string;
  value: T;
  options: readonly { value: T; text: ReactNode; title?: string }[];
  onChange: (value: T) => void;
}) {
  return (
    <fieldset className="segmented">
      <legend className="hidden">{label}</legend>
      {options.map((option) => (
        <button
          key={option.value}
          type="button"
          aria-pressed={option.value === value}
          title={option.title}
          onClick={() => onChange(option.value)}
        >
          {option.text}
        </button>
      ))}
    </fieldset>
  );
}
