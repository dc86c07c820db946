// The list of flows with its filters, all of them in the URL; or, with ?id=, what a search found.
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { useEffect, useMemo, useState } from "react";
import { type FlowFilter, queryClient, useAgents, useFlows, useNewest } from "../api/client";
import type { FlowPage as Answer, FlowSummary, State } from "../api/types";
import { CoverageBadge, Failure, StaleNote } from "../components/bits";
import { StateGlyph } from "../components/Glyph";
import { useCommands } from "../components/keys";
import { ms, stamp, zoneName } from "../lib/time";
import { count, meaningOfState, plural, STATES } from "../lib/words";
import type { FlowsSearch } from "../router";
import { useSettings } from "../settings";
import { FirstRun } from "./FirstRun";
import { FlowTable, TableBones } from "./FlowTable";
import { WhyResults } from "./WhyResults";

const RANGES: Record<string, [string, number]> = {
  "15m": ["Last 15 min", 15 * 60_000],
  "1h": ["Last hour", 3_600_000],
  "6h": ["Last 6 hours", 6 * 3_600_000],
  "24h": ["Last 24 hours", 24 * 3_600_000],
  "7d": ["Last 7 days", 7 * 24 * 3_600_000],
};

export function FlowsPage() {
  const search = useSearch({ strict: false }) as FlowsSearch;
  return search.id ? <WhyResults id={search.id} /> : <FlowList search={search} />;
}

function useFilter({ state, service, type, text, range, from, to }: FlowsSearch): FlowFilter {
  const states = state?.join(" ");
  return useMemo(() => {
    const span = range ? RANGES[range]?.[1] : undefined;
    const filter: FlowFilter = {};
    if (states) filter.state = states.split(" ") as State[];
    if (service) filter.service = service;
    if (type) filter.type = type;
    if (text) filter.text = text;
    if (span) filter.from = new Date(Date.now() - span).toISOString();
    else {
      if (from) filter.from = from;
      if (to) filter.to = to;
    }
    return filter;
  }, [states, service, type, text, range, from, to]);
}

function FlowList({ search }: { search: FlowsSearch }) {
  const filter = useFilter(search);
  const filtered = Object.keys(filter).length > 0;
  const query = useFlows(filter);
  const newest = useNewest(filter, query.isSuccess);
  const { data, error, isPlaceholderData } = query;
  const pages = data?.pages;
  const { flows, added } = useMemo(() => merge(pages, newest.data), [pages, newest.data]);
  const coverage = newest.data?.coverage ?? pages?.[0]?.coverage;
  const types = useMemo(
    () => [...new Set(flows.map((flow) => flow.type).filter((type) => type !== null))].sort(),
    [flows],
  );

  const moveFocus = (by: number) => {
    const links = [...document.querySelectorAll<HTMLElement>("table.flows a.key")];
    const at = links.indexOf(document.activeElement as HTMLElement);
    links[at < 0 ? 0 : Math.min(Math.max(at + by, 0), links.length - 1)]?.focus();
  };
  useCommands({ j: () => moveFocus(1), k: () => moveFocus(-1) });

  return (
    <main className="page">
      <h1 className="hidden">Flows</h1>
      <StaleNote
        error={data ? (error ?? newest.error) : null}
        since={newest.dataUpdatedAt || query.dataUpdatedAt}
      />
      <div className="page-head">
        <Filters search={search} types={types} />
        <span className="spring" />
        <CoverageBadge coverage={coverage} />
      </div>
      {!data && error && <Failure error={error} retry={() => void query.refetch()} />}
      {!data && !error && <TableBones />}
      {data &&
        flows.length === 0 &&
        (filtered ? <NoMatch search={search} answer={pages?.[0]} /> : <FirstRun coverage={coverage} />)}
      {flows.length > 0 && (
        <div className="table-wrap">
          {added > 0 && (
            <button
              type="button"
              className="new-pill"
              onClick={() => {
                void queryClient.invalidateQueries({ queryKey: ["flows"] });
                window.scrollTo({ top: 0 });
              }}
            >
              {count(added)}
              {added >= 50 ? "+" : ""} new, show
            </button>
          )}
          <FlowTable flows={flows} busy={isPlaceholderData} />
          <Foot query={query} shown={flows.length} />
        </div>
      )}
    </main>
  );
}

/** What is listed stays where it is and only changes its words; what is new is counted. */
function merge(
  pages: Answer[] | undefined,
  newest: Answer | undefined,
): { flows: FlowSummary[]; added: number } {
  const listed = pages?.flatMap((page) => page.flows) ?? [];
  const fresh = new Map(newest?.flows.map((flow) => [flow.flow, flow]));
  const seen = new Set<string>();
  const flows = listed
    .filter((flow) => !seen.has(flow.flow) && seen.add(flow.flow))
    .map((flow) => fresh.get(flow.flow) ?? flow);
  const top = listed[0]?.started_at ?? "";
  const added = newest?.flows.filter((flow) => !seen.has(flow.flow) && flow.started_at >= top).length ?? 0;
  return { flows, added };
}

function Foot({ query, shown }: { query: ReturnType<typeof useFlows>; shown: number }) {
  const { zone } = useSettings();
  const last = query.data?.pages.at(-1);
  return (
    <div className="foot">
      <span className="muted num">
        {plural(shown, "flow")}
        {last?.next ? "+" : ""}
        {last?.searched_to &&
          ` · searched back to ${stamp(ms(last.searched_to), zone, "s")} ${zoneName(zone, ms(last.searched_to))}`}
      </span>
      {query.hasNextPage && (
        <button
          type="button"
          className="button"
          disabled={query.isFetchingNextPage}
          onClick={() => void query.fetchNextPage()}
        >
          {query.isFetchingNextPage ? "Looking …" : last?.searched_to ? "Search further back" : "Older flows"}
        </button>
      )}
    </div>
  );
}

function Filters({ search, types }: { search: FlowsSearch; types: string[] }) {
  const navigate = useNavigate();
  const agents = useAgents();
  const services = [...new Set(agents.data?.agents.map((agent) => agent.service))].sort();
  const set = (change: Partial<FlowsSearch>) =>
    void navigate({
      to: "/",
      search: (before) => ({ ...(before as FlowsSearch), ...change }),
      replace: true,
    });
  const states = search.state ?? [];
  const toggle = (state: State) => {
    const next = states.includes(state) ? states.filter((one) => one !== state) : [...states, state];
    set({ state: next.length ? next : undefined });
  };
  return (
    <div className="filters">
      <fieldset className="state-filter">
        <legend className="hidden">State</legend>
        {STATES.map((state) => (
          <button
            key={state}
            type="button"
            aria-pressed={states.includes(state)}
            title={meaningOfState[state]}
            onClick={() => toggle(state)}
          >
            <StateGlyph state={state} size={13} />
            {state}
          </button>
        ))}
      </fieldset>
      <select
        value={search.service ?? ""}
        onChange={(event) => set({ service: event.target.value || undefined })}
        aria-label="Service"
      >
        <option value="">Any service</option>
        {withCurrent(services, search.service).map((service) => (
          <option key={service}>{service}</option>
        ))}
      </select>
      <select
        value={search.type ?? ""}
        onChange={(event) => set({ type: event.target.value || undefined })}
        aria-label="Type"
      >
        <option value="">Any type</option>
        {withCurrent(types, search.type).map((type) => (
          <option key={type}>{type}</option>
        ))}
      </select>
      <RangePicker search={search} set={set} />
      <TextFilter value={search.text ?? ""} onChange={(text) => set({ text: text || undefined })} />
      {Object.keys(search).some((name) => name !== "tz") && (
        <Link to="/" search={{}} className="clear">
          Clear
        </Link>
      )}
    </div>
  );
}

const withCurrent = (values: string[], current: string | undefined) =>
  current && !values.includes(current) ? [current, ...values] : values;

function RangePicker({ search, set }: { search: FlowsSearch; set: (change: Partial<FlowsSearch>) => void }) {
  const { zone } = useSettings();
  const custom = Boolean(search.from || search.to) && !search.range;
  const choose = (value: string) => {
    if (value === "custom")
      set({
        range: undefined,
        from: new Date(Date.now() - 3_600_000).toISOString(),
        to: new Date().toISOString(),
      });
    else set({ range: value || undefined, from: undefined, to: undefined });
  };
  return (
    <>
      <select
        value={custom ? "custom" : (search.range ?? "")}
        onChange={(event) => choose(event.target.value)}
        aria-label="Time range"
      >
        <option value="">Any time</option>
        {Object.entries(RANGES).map(([value, [text]]) => (
          <option key={value} value={value}>
            {text}
          </option>
        ))}
        <option value="custom">From … to …</option>
      </select>
      {custom &&
        (["from", "to"] as const).map((end) => (
          <input
            key={`${end} ${zone}`}
            type="text"
            className="time-field num"
            defaultValue={search[end] ? stamp(ms(search[end]), zone, "s") : ""}
            aria-label={`${end} (${zoneName(zone)})`}
            title={`${end}, ${zoneName(zone)}: 2026-11-21 12:00:00`}
            onBlur={(event) => {
              const time = readTime(event.target.value, zone === "utc");
              if (time) set({ [end]: time });
            }}
            onKeyDown={(event) => event.key === "Enter" && event.currentTarget.blur()}
          />
        ))}
    </>
  );
}

/** What people type for a time: an ISO date and time with or without its T and seconds. */
function readTime(text: string, utc: boolean): string | undefined {
  const plain = text.trim().replace(" ", "T");
  const time = Date.parse(utc && !/(Z|[+-]\d\d:?\d\d)$/.test(plain) ? `${plain}Z` : plain);
  return Number.isNaN(time) ? undefined : new Date(time).toISOString();
}

function TextFilter({ value, onChange }: { value: string; onChange: (text: string) => void }) {
  const [text, setText] = useState(value);
  useEffect(() => setText(value), [value]);
  useEffect(() => {
    if (text === value) return;
    const timer = setTimeout(() => onChange(text.trim()), 250);
    return () => clearTimeout(timer);
  });
  return (
    <input
      type="search"
      value={text}
      onChange={(event) => setText(event.target.value)}
      placeholder="Contains"
      aria-label="Contains"
      spellCheck={false}
    />
  );
}

function NoMatch({ search, answer }: { search: FlowsSearch; answer: Answer | undefined }) {
  const { zone } = useSettings();
  const back = answer?.searched_to;
  const said = [
    search.state?.join(" or "),
    search.service && `through ${search.service}`,
    search.type && `of type ${search.type}`,
    search.text && `containing “${search.text}”`,
    search.range && RANGES[search.range]?.[0].toLowerCase(),
  ].filter(Boolean);
  return (
    <div className="notice">
      <h2>No flow matches</h2>
      <p>
        Looked for flows {said.length ? said.join(", ") : "in this time"}
        {back ? `, back to ${stamp(ms(back), zone, "s")} ${zoneName(zone)}` : ""}.
      </p>
      <p>
        {(search.range || search.from) && (
          <>
            <Link to="/" search={{ ...search, range: undefined, from: undefined, to: undefined }}>
              Any time
            </Link>{" "}
            ·{" "}
          </>
        )}
        <Link to="/" search={{}}>
          All flows
        </Link>
      </p>
    </div>
  );
}
