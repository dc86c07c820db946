// One flow: the verdict on top in a sentence, the evidence under it, then the pictures, opened at the break.
import { Link, useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { useEffect, useMemo } from "react";
import { ApiError, useFlow, useWhy } from "../api/client";
import type { FlowDetail } from "../api/types";
import { CopyButton, CoverageBadge, Failure, StaleNote, When } from "../components/bits";
import { StateGlyph } from "../components/Glyph";
import { buildModel, pathTo } from "../flow/model";
import { selectionOf, Workspace } from "../flow/Workspace";
import { clock, day, duration, inZone, ms, zoneName } from "../lib/time";
import { byTelling, count, plural, toneOfState } from "../lib/words";
import type { FlowSearch } from "../router";
import { useSettings } from "../settings";
import { matchWords } from "./WhyResults";

/** Of one flow the server reads no more. */
const MOST_RECORDS = 10_000;

export function FlowPage() {
  const { flow } = useParams({ strict: false }) as { flow: string };
  const { data, error, refetch, dataUpdatedAt } = useFlow(flow);
  useEffect(() => {
    if (data) document.title = `${nameOf(data)}: ${data.verdict.headline} · Flowtap`;
    return () => {
      document.title = "Flowtap";
    };
  }, [data]);

  if (data)
    return (
      <main className="flow-page" key={flow}>
        <StaleNote error={error} since={dataUpdatedAt} />
        <Head detail={data} />
        <Pictures detail={data} />
      </main>
    );
  if (error instanceof ApiError && error.status === 404) return <NoFlow flow={flow} />;
  if (error)
    return (
      <main className="page">
        <Failure error={error} retry={() => void refetch()} />
      </main>
    );
  return <Skeleton />;
}

function Pictures({ detail }: { detail: FlowDetail }) {
  return (
    <Workspace
      data={detail}
      detail={detail}
      breakAt={detail.verdict.state === "healthy" ? null : detail.verdict.message}
      until={detail.coverage.complete_to}
    />
  );
}

const nameOf = ({ summary }: FlowDetail) => byTelling(summary.keys)[0]?.value ?? summary.type ?? summary.flow;

function Head({ detail }: { detail: FlowDetail }) {
  const { zone } = useSettings();
  const { summary, verdict, coverage } = detail;
  const near = ms(verdict.since ?? summary.started_at);
  const [what, ...more] = verdict.sentences;
  const tone = toneOfState[verdict.state];
  return (
    <header className={`flow-head tone-${tone}`}>
      <div className="flow-title">
        <h1 className={byTelling(summary.keys)[0] ? "mono" : ""}>{nameOf(detail)}</h1>
        <Chain detail={detail} />
        <span className="spring" />
        <span className="muted num">
          {day(ms(summary.started_at), zone)} <When at={summary.started_at} /> {zoneName(zone, near)} ·{" "}
          {duration(ms(summary.last_at) - ms(summary.started_at))} · {plural(summary.messages, "message")}
        </span>
        <CoverageBadge coverage={coverage} />
      </div>
      <div className="verdict">
        <div className="verdict-words" role="status">
          <h2>
            <StateGlyph state={verdict.state} size={22} />
            {verdict.headline}
          </h2>
          {what && <p className="what">{inZone(what, near, zone)}</p>}
          {more.map((sentence) => (
            <p key={sentence}>{inZone(sentence, near, zone)}</p>
          ))}
          {verdict.notes.map((note) => (
            <p key={note} className="note">
              {note}
            </p>
          ))}
        </div>
        <Evidence detail={detail} />
      </div>
      <Notices detail={detail} />
    </header>
  );
}

/** The way from the command to where it stands. */
function Chain({ detail }: { detail: FlowDetail }) {
  const steps = useMemo(() => {
    const model = buildModel(detail);
    const last =
      detail.verdict.message ??
      model.order.toSorted((a, b) => (model.depth[a] ?? 0) - (model.depth[b] ?? 0)).at(-1);
    if (last === undefined) return [];
    const { path } = detail.verdict;
    if (path) return path.split(/ -> | → /);
    const names = pathTo(model, last).map((index) => detail.messages[index]?.event_type ?? "message");
    return detail.summary.command ? [detail.summary.command, ...names] : names;
  }, [detail]);
  const shown = steps.length > 7 ? [...steps.slice(0, 2), "…", ...steps.slice(-4)] : steps;
  return (
    <span className="chain" title={steps.join(" → ")}>
      {shown.map((step, i) => (
        <span key={i}>{step}</span>
      ))}
    </span>
  );
}

function Evidence({ detail }: { detail: FlowDetail }) {
  const { zone } = useSettings();
  const navigate = useNavigate();
  const { sel } = useSearch({ strict: false }) as FlowSearch;
  const { evidence, since } = detail.verdict;
  const near = ms(since ?? detail.summary.started_at);
  return (
    <section aria-label="Evidence" className="evidence">
      <Actions detail={detail} />
      {evidence.length > 0 && (
        <h3>
          Evidence <span className="muted">times in {zoneName(zone, near)}</span>
        </h3>
      )}
      <ol>
        {evidence.slice(0, 8).map(({ row, at, text }) => (
          <li key={`${row.boot} ${row.seq}`}>
            <button
              type="button"
              aria-current={sel === selectionOf(row)}
              onClick={() =>
                void navigate({
                  to: ".",
                  search: (before) => ({ ...before, sel: selectionOf(row) }),
                  resetScroll: false,
                })
              }
            >
              <time dateTime={at} className="num">
                {clock(ms(at), zone)}
              </time>
              <span>{withoutTime(text)}</span>
            </button>
          </li>
        ))}
      </ol>
    </section>
  );
}

/** The time is shown beside it, in the reader's zone. */
const withoutTime = (text: string) => text.replace(/^\d\d:\d\d:\d\d(\.\d+)?\s+/, "");

function Actions({ detail }: { detail: FlowDetail }) {
  const { zone } = useSettings();
  const { summary, verdict, coverage } = detail;
  const link = () => {
    const url = new URL(window.location.href);
    url.searchParams.set("tz", zone);
    return url.toString();
  };
  const command = `flowtap why ${quoted(byTelling(summary.keys)[0]?.value ?? summary.flow)}`;
  const forChat = () =>
    [
      `${verdict.headline} (${nameOf(detail)})`,
      ...verdict.sentences,
      ...verdict.evidence.map((one) => `- ${one.text}`),
      `All times UTC; ${coverage.sentence}.`,
      link(),
      command,
    ].join("\n");
  return (
    <div className="actions">
      <CopyButton text={forChat} title="Verdict, evidence, link and command, for a chat">
        Copy verdict
      </CopyButton>
      <CopyButton text={link} title="Link to exactly this view">
        Copy link
      </CopyButton>
      <CopyButton text={() => command} title={command}>
        Copy command
      </CopyButton>
    </div>
  );
}

const quoted = (text: string) => (/^[\w.:@/+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

/** What the reader should know before trusting the picture. */
function Notices({ detail }: { detail: FlowDetail }) {
  const { id } = useSearch({ strict: false }) as FlowSearch;
  const why = useWhy(id ?? "");
  const matched = why.data?.matched.filter((match) => match.flow === detail.summary.flow) ?? [];
  const others = new Set(why.data?.matched.map((match) => match.flow)).size - 1;
  // A verdict that stands on facts alone needs no word about who was not heard.
  const weak = !["healthy", "broken"].includes(detail.verdict.state);
  const silent = weak ? detail.coverage.silent : [];
  const lines: React.ReactNode[] = [];
  if (id && matched[0])
    lines.push(
      <>
        Found by <b className="mono">{id}</b>: {matched.map(matchWords).join("; ")}.{" "}
        {others > 0 && (
          <Link to="/" search={{ id }}>
            {plural(others, "more flow")}
          </Link>
        )}
      </>,
    );
  if (detail.truncated)
    lines.push(
      detail.records.length >= MOST_RECORDS
        ? `More than ${count(MOST_RECORDS)} records: this is the beginning, cut by time.`
        : "Some of its records are too old to be searched, or could not be read.",
    );
  if (silent.length)
    lines.push(
      <>
        Not seen at the moment: {silent.map((one) => one.agent).join(", ")}. Nothing that should have happened
        there counts as missing. <Link to="/agents">Coverage</Link>
      </>,
    );
  if (!lines.length) return null;
  return (
    <ul className="notices">
      {lines.map((line, i) => (
        <li key={i}>{line}</li>
      ))}
    </ul>
  );
}

function NoFlow({ flow }: { flow: string }) {
  return (
    <main className="page">
      <div className="notice">
        <h1>No flow has this id</h1>
        <p>
          <span className="mono">{flow}</span> names no flow that Flowtap has. Records older than the
          retention are gone; and what is new needs a moment from the sidecar to here.
        </p>
        <p>
          <Link to="/" search={{ id: flow }}>
            Search for it as any id or key
          </Link>{" "}
          or <Link to="/">see all flows</Link>.
        </p>
      </div>
    </main>
  );
}

function Skeleton() {
  return (
    <main className="flow-page" aria-busy="true">
      <header className="flow-head">
        <div className="flow-title">
          <h1 className="hidden">Loading the flow</h1>
          <i className="bone" style={{ width: 180, height: 20 }} />
        </div>
        <div className="verdict">
          <div className="verdict-words">
            <div className="bone-line" style={{ height: 34 }}>
              <i className="bone" style={{ width: 260, height: 22 }} />
            </div>
            <div className="bone-line">
              <i className="bone" style={{ width: "82%" }} />
            </div>
            <div className="bone-line">
              <i className="bone" style={{ width: "54%" }} />
            </div>
            <div className="bone-line" />
          </div>
        </div>
      </header>
      <div className="work">
        <section className="pictures">
          <div className="bar" />
        </section>
        <section className="list" />
        <aside className="panel" />
      </div>
    </main>
  );
}
