// What a search found: straight on to the flow when there is one, a choice when there are more, single
// messages with the reason why they are no flow, or nothing with what can be done.
import { Link, useNavigate } from "@tanstack/react-router";
import { useEffect } from "react";
import { useNewest, useWhy } from "../api/client";
import type { Match, Why } from "../api/types";
import { CoverageBadge, Failure, StaleNote } from "../components/bits";
import { Workspace } from "../flow/Workspace";
import { count, plural } from "../lib/words";
import { FlowTable } from "./FlowTable";

const names: Record<Match["by"], string> = {
  transaction_id: "it is the flow's id",
  event_id: "it is a message's event id",
  command_id: "it is the command id",
  trace_id: "it is the trace id",
  key: "key",
};

/** "order_id of 6 messages", "it is the flow's id" */
export const matchWords = (match: Match) =>
  match.by === "key"
    ? `${match.name ?? "key"} of ${plural(match.count, "message")}`
    : `${names[match.by]}${match.by === "event_id" ? "" : `, ${plural(match.count, "message")}`}`;

export function WhyResults({ id }: { id: string }) {
  const { data, error, refetch, dataUpdatedAt } = useWhy(id);
  const navigate = useNavigate();
  const flows = [...new Set(data?.matched.map((match) => match.flow).filter((flow) => flow !== null))];
  const only =
    data?.found === "flow" && flows.length <= 1 ? (flows[0] ?? data.flow?.summary.flow) : undefined;
  useEffect(() => {
    if (only) void navigate({ to: "/flows/$flow", params: { flow: only }, search: { id }, replace: true });
  }, [only, id, navigate]);

  if (!data && error)
    return (
      <main className="page">
        <Failure error={error} retry={() => void refetch()} />
      </main>
    );
  if (!data || only) return <main className="page" aria-busy="true" />;
  if (data.found === "messages") return <Messages id={id} why={data} error={error} since={dataUpdatedAt} />;
  return (
    <main className="page">
      <StaleNote error={error} since={dataUpdatedAt} />
      {data.found === "flow" ? <Choice id={id} why={data} flows={flows} /> : <Nothing id={id} why={data} />}
    </main>
  );
}

function Choice({ id, why, flows }: { id: string; why: Why; flows: string[] }) {
  const { data } = useNewest({ text: id }, true);
  const summaries = new Map(data?.flows.map((flow) => [flow.flow, flow]));
  if (why.flow) summaries.set(why.flow.summary.flow, why.flow.summary);
  const known = flows.map((flow) => summaries.get(flow)).filter((flow) => flow !== undefined);
  const unknown = flows.filter((flow) => !summaries.has(flow));
  const reason = new Map(why.matched.map((match) => [match.flow, matchWords(match)]));
  return (
    <>
      <div className="page-head">
        <h1>
          {count(flows.length)} flows match <span className="mono">{id}</span>
        </h1>
        <span className="spring" />
        <CoverageBadge coverage={why.coverage} />
      </div>
      <FlowTable flows={known} search={{ id }} reason={(flow) => reason.get(flow.flow) ?? null} />
      {unknown.length > 0 && (
        <ul className="related">
          {unknown.map((flow) => (
            <li key={flow}>
              <Link to="/flows/$flow" params={{ flow }} search={{ id }} className="mono">
                {flow}
              </Link>{" "}
              <span className="muted">{reason.get(flow)}</span>
            </li>
          ))}
        </ul>
      )}
    </>
  );
}

function Messages({ id, why, error, since }: { id: string; why: Why; error: unknown; since: number }) {
  return (
    <main className="flow-page">
      <StaleNote error={error} since={since} />
      <header className="flow-head tone-unknown">
        <div className="flow-title">
          <h1 className="mono">{id}</h1>
          <span className="chain">
            <span>{plural(why.messages.length, "single message")}, no flow</span>
          </span>
          <span className="spring" />
          <CoverageBadge coverage={why.coverage} />
        </div>
        <div className="verdict">
          <div className="verdict-words" role="status">
            <p className="what">{why.explanation}</p>
            <p>
              Flowtap gives no verdict on single messages: it does not know which caused which. Services that
              send a correlation id and a causation id (CloudEvents, MassTransit, NServiceBus and others do)
              make them one flow.
            </p>
          </div>
        </div>
      </header>
      <Workspace
        data={{ messages: why.messages, records: why.records, edges: [] }}
        detail={null}
        breakAt={null}
        until={why.coverage.complete_to}
      />
    </main>
  );
}

function Nothing({ id, why }: { id: string; why: Why }) {
  const { coverage } = why;
  return (
    <div className="notice">
      <h1>
        Nothing carries <span className="mono">{id}</span>
      </h1>
      <p>
        Searched as transaction id, event id, trace id and business key, in everything that Flowtap has. It is
        asked again every few seconds.
      </p>
      <ul>
        <li>Ids match whole: order-1042 does not find order-10425, and case counts.</li>
        <li>
          A business key is found only where a sidecar records it: from headers and from JSON bodies, under
          the built-in id names or those in <code>[record] keys</code>.
        </li>
        {coverage.silent.length > 0 && (
          <li>
            {coverage.silent.map((one) => one.agent).join(", ")} {coverage.silent.length === 1 ? "is" : "are"}{" "}
            silent: what happened there lately is not here yet.
          </li>
        )}
        {coverage.total === 0 && <li>No sidecar has reported yet: nothing is recorded.</li>}
      </ul>
      <p>
        <Link to="/" search={{ text: id }}>
          Look for flows that contain it
        </Link>
        , or <Link to="/">see all flows</Link>.
      </p>
      <p>
        <CoverageBadge coverage={coverage} />
      </p>
    </div>
  );
}
