// The four pictures of one set of messages with one selection: timeline or graph above, the record list
// below, details beside. The selection is in the URL; what is folded is not.
import { useNavigate, useSearch } from "@tanstack/react-router";
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import type { FlowDetail, RowRef } from "../api/types";
import { Segmented } from "../components/bits";
import { useCommands } from "../components/keys";
import { ms } from "../lib/time";
import { count, plural } from "../lib/words";
import type { FlowSearch } from "../router";
import { Graph } from "./Graph";
import { pendingOf } from "./lanes";
import {
  buildModel,
  buildRows,
  type FlowModel,
  findFolds,
  messageKey,
  pathTo,
  type Row,
  refOf,
} from "./model";
import { Panel } from "./Panel";
import { RecordGrid } from "./RecordGrid";
import { Timeline, type TimelineHandle } from "./Timeline";

interface Props {
  data: Pick<FlowDetail, "messages" | "edges" | "records">;
  detail: FlowDetail | null;
  /** Where the page opens: the verdict's message. */
  breakAt: number | null;
  until: string | null;
}

interface Selection {
  message: number | null;
  record: number | null;
  key: string | null;
}

function readSelection(model: FlowModel, sel: string | undefined, breakAt: number | null): Selection {
  const nothing = { message: null, record: null, key: null };
  if (sel === "none") return nothing;
  if (!sel)
    return breakAt === null ? nothing : { message: breakAt, record: null, key: messageKey(model, breakAt) };
  const whole = sel.startsWith("m.");
  const record = model.recordAt.get(whole ? sel.slice(2) : sel);
  if (record === undefined) return nothing;
  const message = model.messageOf[record] ?? null;
  return whole ? { message, record: null, key: sel } : { message, record, key: sel };
}

/** For links to a record from outside, such as the verdict's evidence. */
export const selectionOf = (row: RowRef) => refOf(row);

export function Workspace({ data, detail, breakAt, until }: Props) {
  const search = useSearch({ strict: false }) as FlowSearch;
  const navigate = useNavigate();
  const model = useMemo(() => buildModel(data), [data]);
  const folds = useMemo(() => findFolds(model), [model]);
  const [opened, setOpened] = useState<ReadonlySet<string>>(
    () => new Set(breakAt === null ? [] : [messageKey(model, breakAt)]),
  );
  const [reveal, setReveal] = useState(0);
  const timeline = useRef<TimelineHandle>(null);

  const set = useCallback(
    (change: Partial<FlowSearch>) =>
      void navigate({
        to: ".",
        search: (before) => ({ ...before, ...change }),
        replace: true,
        resetScroll: false,
      }),
    [navigate],
  );

  const selection = readSelection(model, search.sel, breakAt);
  const path = useMemo(
    () => new Set(selection.message === null ? [] : pathTo(model, selection.message)),
    [model, selection.message],
  );
  const filter = search.q ?? "";
  const problemsOnly = search.problems === "1";
  const { rows, hidden } = useMemo(
    () => buildRows(model, { opened, filter, problemsOnly }),
    [model, opened, filter, problemsOnly],
  );

  // What is selected is never hidden in a fold.
  useEffect(() => {
    if (selection.message === null) return;
    const needed = pathTo(model, selection.message)
      .map((index) => folds.foldOf.get(index)?.key)
      .filter((key) => key !== undefined);
    if (selection.record !== null) needed.push(messageKey(model, selection.message));
    setOpened((before) =>
      needed.every((key) => before.has(key)) ? before : new Set([...before, ...needed]),
    );
  }, [model, folds, selection.message, selection.record]);

  const selectMessage = useCallback(
    (index: number) => {
      set({ sel: messageKey(model, index) });
      setReveal((n) => n + 1);
    },
    [model, set],
  );
  const selectRecord = useCallback(
    (index: number) => {
      const record = model.detail.records[index];
      if (record) set({ sel: refOf(record) });
      setReveal((n) => n + 1);
    },
    [model, set],
  );
  const [focused, setFocused] = useState<string | null>(null);
  const activate = useCallback(
    (row: Row) => {
      if (row.kind === "message" || row.kind === "record") {
        setFocused(null);
        set({ sel: row.key });
      } else setFocused(row.key);
    },
    [set],
  );
  const toggleKey = useCallback(
    (key: string) =>
      setOpened((before) => {
        const next = new Set(before);
        if (!next.delete(key)) next.add(key);
        return next;
      }),
    [],
  );
  const toggle = useCallback((row: Row) => toggleKey(row.key), [toggleKey]);

  const activeKey = focused ?? selection.key;
  const step = (by: number) => {
    const at = rows.findIndex((row) => row.key === activeKey);
    const next = rows[at < 0 ? 0 : Math.min(Math.max(at + by, 0), rows.length - 1)];
    if (next) activate(next);
  };
  const problems = useMemo(() => model.order.filter((index) => model.problems.has(index)), [model]);
  const stepProblem = (by: number) => {
    if (!problems.length) return;
    const at = selection.message === null ? -1 : problems.indexOf(selection.message);
    const next = problems[(at + by + problems.length + (at < 0 && by < 0 ? 1 : 0)) % problems.length];
    if (next !== undefined) selectMessage(next);
  };
  const graph = search.view === "graph";
  const openRow = () => {
    const row = rows.find((one) => one.key === activeKey);
    if (row && row.kind !== "record") toggle(row);
  };
  /** One step back: the filter, then the selection, then the page. */
  const leave = () => {
    if (filter || problemsOnly) set({ q: undefined, problems: undefined });
    else if (selection.key) set({ sel: "none" });
    else window.history.back();
  };
  useCommands({
    j: () => step(1),
    k: () => step(-1),
    n: () => stepProblem(1),
    p: () => stepProblem(-1),
    f: () => timeline.current?.fit(),
    "+": () => timeline.current?.zoomBy(1.6),
    "=": () => timeline.current?.zoomBy(1.6),
    "-": () => timeline.current?.zoomBy(1 / 1.6),
    "0": () => timeline.current?.reset(),
    l: () => set({ linear: search.linear ? undefined : "1" }),
    g: () => set({ view: graph ? undefined : "graph" }),
    Enter: openRow,
    Escape: leave,
  });

  const pending = useMemo(() => (detail ? pendingOf(detail.verdict, detail.messages) : null), [detail]);
  const at = selection.message === null ? -1 : problems.indexOf(selection.message);
  return (
    <div className="work">
      <section className="pictures" aria-label="Picture">
        <div className="bar">
          <Segmented
            label="Picture"
            value={graph ? "graph" : "timeline"}
            onChange={(view) => set({ view: view === "graph" ? "graph" : undefined })}
            options={[
              { value: "timeline", text: "Timeline" },
              { value: "graph", text: "Cause and effect" },
            ]}
          />
          {!graph && (
            <>
              <button
                type="button"
                className="button"
                aria-pressed={!search.linear}
                title="L"
                onClick={() => set({ linear: search.linear ? undefined : "1" })}
              >
                Fold idle time
              </button>
              <span className="group">
                <button
                  type="button"
                  className="button square"
                  aria-label="Zoom out"
                  title="−"
                  onClick={() => timeline.current?.zoomBy(1 / 1.6)}
                >
                  −
                </button>
                <button
                  type="button"
                  className="button square"
                  aria-label="Zoom in"
                  title="+"
                  onClick={() => timeline.current?.zoomBy(1.6)}
                >
                  +
                </button>
                <button type="button" className="button" title="F" onClick={() => timeline.current?.fit()}>
                  Fit
                </button>
              </span>
            </>
          )}
          <span className="spring" />
          {problems.length > 0 && (
            <span className="group problems">
              <span>
                {at >= 0
                  ? `problem ${count(at + 1)} of ${count(problems.length)}`
                  : `${count(problems.length)} ${problems.length === 1 ? "problem" : "problems"}`}
              </span>
              <button
                type="button"
                className="button square"
                aria-label="Previous problem"
                title="P"
                onClick={() => stepProblem(-1)}
              >
                ‹
              </button>
              <button
                type="button"
                className="button square"
                aria-label="Next problem"
                title="N"
                onClick={() => stepProblem(1)}
              >
                ›
              </button>
            </span>
          )}
        </div>
        {graph ? (
          <Graph
            model={model}
            selected={selection.message}
            opened={opened}
            onOpen={toggleKey}
            onSelect={selectMessage}
          />
        ) : (
          <Timeline
            ref={timeline}
            model={model}
            pending={pending}
            until={until ? ms(until) : null}
            selected={selection.message}
            linear={search.linear === "1"}
            breakAt={breakAt}
            onSelect={selectMessage}
          />
        )}
      </section>
      <section className="list" aria-label="Records">
        <div className="bar">
          <input
            type="search"
            value={filter}
            onChange={(event) => set({ q: event.target.value || undefined })}
            placeholder="Filter messages"
            aria-label="Filter messages"
            spellCheck={false}
          />
          <label className="check">
            <input
              type="checkbox"
              checked={problemsOnly}
              onChange={(event) => set({ problems: event.target.checked ? "1" : undefined })}
            />
            Problems only
          </label>
          <span className="spring" />
          <span className="muted num" role="status">
            {hidden > 0 && `${count(hidden)} hidden · `}
            {plural(data.messages.length, "message")}, {plural(data.records.length, "record")}
          </span>
        </div>
        <RecordGrid
          model={model}
          rows={rows}
          active={activeKey}
          path={path}
          onActivate={activate}
          onToggle={toggle}
          reveal={reveal}
        />
      </section>
      <Panel
        model={model}
        detail={detail}
        message={selection.message}
        record={selection.record}
        onMessage={selectMessage}
        onRecord={selectRecord}
        onClose={() => set({ sel: "none" })}
      />
    </div>
  );
}
