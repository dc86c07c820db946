// Flows as rows: where each stands, in words; nothing here needs its records.
import { Link, useNavigate } from "@tanstack/react-router";
import type { FlowSummary } from "../api/types";
import { StateMark, SystemMark } from "../components/Glyph";
import { ago, clock, day, duration, inZone, ms, stamp, zoneName } from "../lib/time";
import { byTelling, plural } from "../lib/words";
import { useNow, useSettings } from "../settings";

interface Props {
  flows: FlowSummary[];
  /** Goes along to the flow's page. */
  search?: { id?: string };
  /** Why a row is here. */
  reason?: (flow: FlowSummary) => string | null;
  busy?: boolean;
}

export function FlowTable({ flows, search, reason, busy }: Props) {
  const { zone } = useSettings();
  const now = useNow();
  return (
    <table className="flows" aria-busy={busy}>
      <thead>
        <tr>
          <th scope="col" className="c-state">
            State
          </th>
          <th scope="col" className="c-key">
            Flow
          </th>
          <th scope="col">What happened</th>
          <th scope="col" className="c-step">
            Last step
          </th>
          <th scope="col" className="c-time">
            Started ({zoneName(zone)})
          </th>
          <th scope="col" className="c-size">
            Took
          </th>
        </tr>
      </thead>
      <tbody>
        {flows.map((flow) => (
          <FlowRow
            key={flow.flow}
            flow={flow}
            search={search ?? {}}
            reason={reason?.(flow) ?? null}
            now={now}
          />
        ))}
      </tbody>
    </table>
  );
}

/** "at factory" of "BROKEN at factory": the state has its own mark. */
const place = (headline: string) => headline.replace(/^[A-Z]{4,}\b:?\s*/, "");

function FlowRow({
  flow,
  search,
  reason,
  now,
}: {
  flow: FlowSummary;
  search: { id?: string };
  reason: string | null;
  now: number;
}) {
  const { zone } = useSettings();
  const navigate = useNavigate();
  const started = ms(flow.started_at);
  const today = day(started, zone) === day(now, zone);
  const [first, ...others] = byTelling(flow.keys);
  const open = () => void navigate({ to: "/flows/$flow", params: { flow: flow.flow }, search });
  return (
    // Keys reach the link in the row.
    <tr
      className={`is-${flow.state}`}
      onClick={(event) => {
        if (!(event.target as HTMLElement).closest("a") && !window.getSelection()?.toString()) open();
      }}
    >
      <td>
        <StateMark state={flow.state} />
        <div className="second where" title={flow.headline}>
          {place(flow.headline)}
        </div>
      </td>
      <td>
        <Link to="/flows/$flow" params={{ flow: flow.flow }} search={search} className="key mono">
          {first?.value ?? flow.flow}
        </Link>
        <div className="second" title={flow.keys.map((key) => `${key.name} ${key.value}`).join(", ")}>
          {others.length ? others.map((key) => key.value).join(", ") : (flow.command ?? flow.type)}
        </div>
      </td>
      <td>
        <div className="sentence">{inZone(flow.sentence, ms(flow.last_at), zone)}</div>
        {reason && <div className="second">found by {reason}</div>}
      </td>
      <td>
        {flow.last_step ?? flow.type ?? ""}
        <div className="second">
          {flow.systems.map((system) => (
            <SystemMark key={system} system={system} />
          ))}{" "}
          {plural(flow.messages, "message")}, {flow.command ?? flow.type}
        </div>
      </td>
      <td className="num" title={`${stamp(started, zone)} ${zoneName(zone, started)}`}>
        {today ? "" : `${day(started, zone)} `}
        {clock(started, zone, "s")}
        <div className="second">{ago(started, now)}</div>
      </td>
      <td className="num right">{duration(ms(flow.last_at) - started)}</td>
    </tr>
  );
}

export function TableBones({ rows = 12 }: { rows?: number }) {
  return (
    <div className="bones" aria-hidden="true">
      {Array.from({ length: rows }, (_, i) => (
        <div key={i}>
          <i className="bone" style={{ width: 72 }} />
          <i className="bone" style={{ width: 96 }} />
          <i className="bone" style={{ width: `${30 + ((i * 37) % 25)}%` }} />
        </div>
      ))}
    </div>
  );
}
