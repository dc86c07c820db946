// Coverage: which sidecars are there, up to when each saw everything, and where Flowtap was blind. What it
// did not see it does not judge, so this page is the measure of every verdict.
import { useEffect } from "react";
import { useAgents } from "../api/client";
import type { Agent, Coverage } from "../api/types";
import { Failure, StaleNote, When } from "../components/bits";
import { SystemMark } from "../components/Glyph";
import { ago, clock, duration, inZone, ms, stamp, zoneName } from "../lib/time";
import { count } from "../lib/words";
import { useNow, useSettings } from "../settings";
import { FirstRun } from "./FirstRun";
import { TableBones } from "./FlowTable";

const SPAN = 60 * 60_000;

export function AgentsPage() {
  const { data, error, refetch, dataUpdatedAt } = useAgents();
  useEffect(() => {
    document.title = "Coverage · Flowtap";
    return () => {
      document.title = "Flowtap";
    };
  }, []);
  return (
    <main className="page">
      <StaleNote error={data ? error : null} since={dataUpdatedAt} />
      {!data && error && <Failure error={error} retry={() => void refetch()} />}
      {!data && !error && <TableBones rows={6} />}
      {(!data || data.agents.length === 0) && <h1 className="hidden">Coverage</h1>}
      {data && data.agents.length === 0 && <FirstRun coverage={data.coverage} />}
      {data && data.agents.length > 0 && (
        <>
          <Head coverage={data.coverage} />
          <Sidecars agents={data.agents} coverage={data.coverage} />
          <Gaps coverage={data.coverage} />
        </>
      )}
    </main>
  );
}

function Head({ coverage }: { coverage: Coverage }) {
  const { zone } = useSettings();
  const near = coverage.complete_to ? ms(coverage.complete_to) : Date.now();
  const now = useNow();
  return (
    <header className="coverage-head">
      <h1>{capital(inZone(coverage.sentence, near, zone))}</h1>
      <p className="muted">
        {coverage.silent.length > 0 ? (
          <>
            Silent:{" "}
            {coverage.silent.map((one, i) => (
              <span key={one.agent}>
                {i > 0 && ", "}
                <b>{one.agent}</b> since {clock(ms(one.since), zone, "s")} {zoneName(zone)} (
                {ago(ms(one.since), now)})
              </span>
            ))}
            . What should have happened there does not count as missing: such flows are “unknown”, never
            “broken”.
          </>
        ) : (
          "Everything that the sidecars saw up to this time is in. Only with that may Flowtap say that something did not happen."
        )}
      </p>
    </header>
  );
}

const capital = (text: string) => text.charAt(0).toUpperCase() + text.slice(1);

const order: Agent["state"][] = ["died", "silent", "live", "ended"];

const words: Record<Agent["state"], [string, string]> = {
  live: ["ok", "reports"],
  silent: ["late", "not heard for three periods"],
  died: ["broken", "gone without an exit"],
  ended: ["unknown", "stopped as told, everything uploaded"],
};

function Sidecars({ agents, coverage }: { agents: Agent[]; coverage: Coverage }) {
  const { zone } = useSettings();
  const now = useNow();
  const sorted = agents.toSorted(
    (a, b) =>
      order.indexOf(a.state) - order.indexOf(b.state) ||
      a.service.localeCompare(b.service) ||
      a.agent.localeCompare(b.agent),
  );
  return (
    <table className="agents">
      <thead>
        <tr>
          <th scope="col">State</th>
          <th scope="col">Service</th>
          <th scope="col">Sidecar</th>
          <th scope="col" className="c-strip">
            Seen, {clock(now - SPAN, zone, "s").slice(0, 5)} to {clock(now, zone, "s").slice(0, 5)}{" "}
            {zoneName(zone)}
          </th>
          <th scope="col">Complete to ({zoneName(zone)})</th>
          <th scope="col">Taps</th>
          <th scope="col" className="right">
            Records
          </th>
          <th scope="col" className="right">
            In its spool
          </th>
          <th scope="col" className="right">
            Gaps
          </th>
          <th scope="col">Started</th>
        </tr>
      </thead>
      <tbody>
        {sorted.map((agent) => (
          <tr key={agent.boot}>
            <td>
              <AgentMark state={agent.state} />
            </td>
            <td>
              <b>{agent.service}</b>
              {agent.instance && agent.instance !== agent.agent && (
                <div className="second">{agent.instance}</div>
              )}
            </td>
            <td className="mono">
              {agent.agent}
              {agent.version && <div className="second">{agent.version}</div>}
            </td>
            <td className="c-strip">
              <Strip agent={agent} coverage={coverage} now={now} />
            </td>
            <td className="num">
              {agent.watermark ? <When at={agent.watermark} precision="s" /> : "-"}
              {agent.watermark && (
                <div className="second">
                  {agent.state === "live"
                    ? `${duration(now - ms(agent.watermark))} behind`
                    : ago(ms(agent.watermark), now)}
                </div>
              )}
            </td>
            <td className="mono taps">
              {agent.taps.map((tap) => (
                <div key={`${tap.kind} ${tap.listen}`}>
                  <SystemMark system={tap.kind === "kafka" ? "kafka" : "rabbitmq"} /> {tap.listen ?? tap.kind}{" "}
                  <span className="muted">→ {tap.broker ?? "?"}</span>
                </div>
              ))}
            </td>
            <td className="num right">{agent.last_seq === null ? "-" : count(agent.last_seq)}</td>
            <td className="num right">{agent.spool_bytes === null ? "-" : bytes(agent.spool_bytes)}</td>
            <td className="num right">
              {agent.gaps ? <b className="tone-late">{count(agent.gaps)}</b> : "0"}
            </td>
            <td
              className="num"
              title={agent.started_at ? `${stamp(ms(agent.started_at), zone)} ${zoneName(zone)}` : ""}
            >
              {agent.started_at ? ago(ms(agent.started_at), now) : "-"}
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function AgentMark({ state }: { state: Agent["state"] }) {
  const [tone, meaning] = words[state];
  return (
    <span className={`state tone-${tone}`} title={meaning}>
      <svg viewBox="0 0 16 16" width="15" height="15" className="glyph" aria-hidden="true">
        {state === "live" && (
          <>
            <circle cx="8" cy="8" r="6.25" />
            <circle cx="8" cy="8" r="2.4" className="solid" />
          </>
        )}
        {state === "silent" && <circle cx="8" cy="8" r="6.25" strokeDasharray="2.4 2.2" />}
        {state === "died" && <path d="M4 4l8 8M12 4l-8 8" />}
        {state === "ended" && <rect x="3.5" y="3.5" width="9" height="9" rx="1.5" />}
      </svg>
      {state}
    </span>
  );
}

/** The last hour: solid where the sidecar saw everything, hatched where it did not. */
function Strip({ agent, coverage, now }: { agent: Agent; coverage: Coverage; now: number }) {
  const at = (time: number) => Math.min(Math.max(((time - now + SPAN) / SPAN) * 100, 0), 100);
  const from = agent.started_at ? at(ms(agent.started_at)) : 0;
  const to = agent.watermark ? at(ms(agent.watermark)) : from;
  const gaps = coverage.gaps.filter((gap) => gap.agent === agent.agent && gap.from);
  return (
    <svg
      className="strip"
      viewBox="0 0 100 10"
      preserveAspectRatio="none"
      role="img"
      aria-label={`${agent.agent}: seen for ${Math.round(((to - from) / 100) * 60)} of the last 60 minutes`}
    >
      <rect x="0" y="0" width="100" height="10" className="blind" />
      <rect x={from} y="0" width={Math.max(to - from, 0.3)} height="10" className="seen" />
      {gaps.map((gap) => {
        const x = at(ms(gap.from ?? ""));
        return (
          <rect
            key={`${gap.from} ${gap.reason}`}
            x={x}
            y="0"
            width={Math.max((gap.to ? at(ms(gap.to)) : x) - x, 0.8)}
            height="10"
            className="lost"
          />
        );
      })}
    </svg>
  );
}

function Gaps({ coverage }: { coverage: Coverage }) {
  const { zone } = useSettings();
  return (
    <section className="gaps">
      <h2>Gaps</h2>
      {coverage.gaps.length === 0 ? (
        <p className="muted">None: no sidecar had to leave anything out.</p>
      ) : (
        <>
          <p className="muted">
            What a sidecar could not record, as it says itself
            {coverage.gaps.length >= 20 && "; the newest 20"}.
          </p>
          <table className="agents">
            <thead>
              <tr>
                <th scope="col">Service</th>
                <th scope="col">Sidecar</th>
                <th scope="col">From ({zoneName(zone)})</th>
                <th scope="col">To</th>
                <th scope="col" className="right">
                  Records
                </th>
                <th scope="col">Why</th>
              </tr>
            </thead>
            <tbody>
              {coverage.gaps.map((gap) => (
                <tr key={`${gap.agent} ${gap.from} ${gap.reason}`}>
                  <td>
                    <b>{gap.service ?? "?"}</b>
                  </td>
                  <td className="mono">{gap.agent}</td>
                  <td className="num">{gap.from ? stamp(ms(gap.from), zone, "s") : "?"}</td>
                  <td className="num">{gap.to ? clock(ms(gap.to), zone, "s") : "?"}</td>
                  <td className="num right">{gap.count === null ? "?" : count(gap.count)}</td>
                  <td>{gap.reason ?? "not said"}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </>
      )}
    </section>
  );
}

function bytes(n: number): string {
  if (n < 1000) return `${n} B`;
  if (n < 1e6) return `${(n / 1e3).toFixed(0)} kB`;
  if (n < 1e9) return `${(n / 1e6).toFixed(1)} MB`;
  return `${(n / 1e9).toFixed(1)} GB`;
}
