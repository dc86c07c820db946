// One shape for each state and outcome. Shapes differ, so that nobody needs the colours.
import type { ReactNode } from "react";
import type { State } from "../api/types";
import { systemNames } from "../lib/places";
import { type Tone, toneOfOutcome, toneOfState } from "../lib/words";

const shapes: Record<State, ReactNode> = {
  healthy: (
    <>
      <circle cx="8" cy="8" r="6.25" />
      <path d="M5.2 8.3 7.2 10.2 10.9 6" />
    </>
  ),
  running: (
    <>
      <path d="M14.25 8A6.25 6.25 0 1 1 8 1.75" />
      <path d="M6.5 5.6v4.8L10.4 8Z" className="solid" />
    </>
  ),
  late: (
    <>
      <circle cx="8" cy="8" r="6.25" />
      <path d="M8 4.6V8l2.3 1.6" />
    </>
  ),
  suspect: (
    <>
      <path d="M8 2 14.4 13.4H1.6Z" />
      <path d="M8 6.4v3.2M8 11.4v.1" />
    </>
  ),
  broken: (
    <>
      <path d="M5.3 1.4h5.4l3.9 3.9v5.4l-3.9 3.9H5.3l-3.9-3.9V5.3Z" className="solid" />
      <path d="m5.6 5.6 4.8 4.8m0-4.8-4.8 4.8" className="cut" />
    </>
  ),
  unknown: (
    <>
      <circle cx="8" cy="8" r="6.25" strokeDasharray="2.4 2.2" />
      <path d="M6.3 6.4c0-2.3 3.4-2.2 3.4-.1 0 1.4-1.7 1.4-1.7 2.7M8 11.2v.1" />
    </>
  ),
};

export function StateGlyph({ state, size = 15 }: { state: State; size?: number }) {
  return (
    <svg
      className={`glyph tone-${toneOfState[state]}`}
      viewBox="0 0 16 16"
      width={size}
      height={size}
      aria-hidden="true"
    >
      {shapes[state]}
    </svg>
  );
}

export function StateMark({ state }: { state: State }) {
  return (
    <span className={`state tone-${toneOfState[state]}`}>
      <StateGlyph state={state} />
      {state}
    </span>
  );
}

/** RabbitMQ: what stands in a queue. Kafka: lines of a log. */
const systemShapes: Record<string, ReactNode> = {
  rabbitmq: <path d="M1.5 4.2h2.6v3.6H1.5ZM5.4 4.2H8v3.6H5.4ZM9.4 6h1.6" />,
  kafka: <path d="M1.5 2.6h9M1.5 6h9M1.5 9.4h5.4" />,
};

/** Which broker; its name is there for eyes that ask and for screen readers. */
export function SystemMark({ system }: { system: string | null | undefined }) {
  const shape = system ? systemShapes[system] : undefined;
  if (!shape || !system) return null;
  const name = systemNames[system] ?? system;
  return (
    <svg className="glyph system" viewBox="0 0 12 12" width="12" height="12" role="img" aria-label={name}>
      <title>{name}</title>
      {shape}
    </svg>
  );
}

const outcomeShapes: Record<string, ReactNode> = {
  acked: <path d="M2.5 6.3 5 8.7 9.5 3.5" />,
  committed: <path d="M2.5 6.3 5 8.7 9.5 3.5" />,
  confirmed: <path d="M2.5 6.3 5 8.7 9.5 3.5" />,
  auto: <circle cx="6" cy="6" r="2.2" className="solid" />,
  rejected: <path d="m3 3 6 6m0-6-6 6" />,
  refused: <path d="m3 3 6 6m0-6-6 6" />,
  aborted: <path d="m3 3 6 6m0-6-6 6" />,
  unroutable: <path d="M2 6h4M9.2 3.4 6.6 8.6M6.6 3.4l2.6 5.2" />,
  requeued: <path d="M9.4 6A3.5 3.5 0 1 1 7.6 2.9M7.9.8v2.4H5.6" />,
};

export function OutcomeGlyph({
  outcome,
  tone = toneOfOutcome(outcome),
}: {
  outcome: string | null;
  tone?: Tone;
}) {
  return (
    <svg className={`glyph tone-${tone}`} viewBox="0 0 12 12" width="12" height="12" aria-hidden="true">
      {(outcome && outcomeShapes[outcome]) ?? <circle cx="6" cy="6" r="3.6" strokeDasharray="2 1.8" />}
    </svg>
  );
}
