// The record list: messages in the order of cause, each opening to its records. This is the truth of the
// page for eyes, keys and screen readers alike; the pictures above show the same rows.
import { useVirtualizer } from "@tanstack/react-virtual";
import { type KeyboardEvent, type MouseEvent, useEffect, useRef } from "react";
import type { HistoryRecord, Message } from "../api/types";
import { OutcomeGlyph, StateGlyph, SystemMark } from "../components/Glyph";
import { isKafka, longPlace, placeOf, shortPlace } from "../lib/places";
import { clock, duration, ms, type Zone, zoneName } from "../lib/time";
import { count, kindWord, toneOfState } from "../lib/words";
import { useSettings } from "../settings";
import { Chips } from "./Graph";
import type { FlowModel, Row } from "./model";
import { startOf } from "./model";

interface Props {
  model: FlowModel;
  rows: Row[];
  active: string | null;
  path: ReadonlySet<number>;
  onActivate(row: Row): void;
  onToggle(row: Row): void;
  /** Set when the selection came from elsewhere: the row is brought into view. */
  reveal: number;
}

const ROW = 28;

export function RecordGrid({ model, rows, active, path, onActivate, onToggle, reveal }: Props) {
  const { zone } = useSettings();
  const scroller = useRef<HTMLDivElement>(null);
  const at = rows.findIndex((row) => row.key === active);
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => ROW,
    overscan: 12,
    getItemKey: (i) => rows[i]?.key ?? i,
  });

  useEffect(() => {
    if (at < 0) return;
    // At first right under the head, below its cause: the rest of the list may be past the window's end.
    if (reveal === 0) virtual.scrollToIndex(Math.max(at - 1, 0), { align: "start" });
    else virtual.scrollToIndex(at, { align: "auto" });
  }, [active, reveal, at >= 0]);

  const press = (event: KeyboardEvent) => {
    const step = {
      ArrowDown: 1,
      ArrowUp: -1,
      PageDown: 12,
      PageUp: -12,
      Home: -rows.length,
      End: rows.length,
    }[event.key];
    if (step !== undefined) {
      event.preventDefault();
      const next = rows[Math.min(Math.max(at + step, 0), rows.length - 1)];
      if (next) onActivate(next);
      return;
    }
    const row = rows[at];
    if (!row) return;
    const isOpen = "open" in row && row.open;
    if ((event.key === "ArrowRight" && "open" in row && !isOpen) || (event.key === "ArrowLeft" && isOpen)) {
      event.preventDefault();
      onToggle(row);
    } else if (event.key === "ArrowLeft" && row.kind === "record") {
      const above = rows.slice(0, at).findLast((one) => one.kind !== "record");
      if (above) onActivate(above);
    }
  };

  return (
    <div
      className="records"
      role="treegrid"
      aria-label="Messages and their records"
      aria-rowcount={rows.length + 1}
      aria-activedescendant={at >= 0 ? `row-${rows[at]?.key}` : undefined}
      tabIndex={0}
      ref={scroller}
      onKeyDown={press}
    >
      <div className="records-head" role="row" aria-rowindex={1}>
        <span role="columnheader">Time ({zoneName(zone)})</span>
        <span role="columnheader">Message</span>
        <span role="columnheader">Published</span>
        <span role="columnheader">Handled by</span>
      </div>
      <div role="rowgroup" style={{ height: virtual.getTotalSize(), position: "relative" }}>
        {virtual.getVirtualItems().map((item) => {
          const row = rows[item.index] as Row;
          return (
            <GridRow
              key={item.key}
              row={row}
              model={model}
              zone={zone}
              top={item.start}
              index={item.index}
              active={row.key === active}
              onPath={row.kind === "message" && path.has(row.index)}
              onActivate={onActivate}
              onToggle={onToggle}
            />
          );
        })}
      </div>
    </div>
  );
}

interface RowProps {
  row: Row;
  model: FlowModel;
  zone: Zone;
  top: number;
  index: number;
  active: boolean;
  onPath: boolean;
  onActivate(row: Row): void;
  onToggle(row: Row): void;
}

function GridRow({ row, model, zone, top, index, active, onPath, onActivate, onToggle }: RowProps) {
  const open = "open" in row ? row.open : undefined;
  const depth = "depth" in row ? row.depth : 0;
  const problem = row.kind === "message" && model.problems.has(row.index);
  const toggle = (event: MouseEvent) => {
    event.stopPropagation();
    onToggle(row);
  };
  return (
    <div
      role="row"
      id={`row-${row.key}`}
      className={`row ${row.kind} ${active ? "active" : ""} ${problem ? `problem ${toneOf(model, row.index)}` : ""} ${onPath ? "on-path" : ""}`}
      aria-rowindex={index + 2}
      aria-level={row.kind === "record" ? 2 : 1}
      aria-expanded={open}
      aria-selected={active}
      style={{ transform: `translateY(${top}px)`, height: ROW }}
      onClick={() => (row.kind === "fold" || row.kind === "others" ? onToggle(row) : onActivate(row))}
    >
      <Cells row={row} model={model} zone={zone} depth={depth} open={open} toggle={toggle} />
    </div>
  );
}

const toneOf = (model: FlowModel, index: number) => {
  const state = model.detail.messages[index]?.state;
  return `tone-${state && state !== "healthy" ? toneOfState[state] : "broken"}`;
};

interface CellProps {
  row: Row;
  model: FlowModel;
  zone: Zone;
  depth: number;
  open: boolean | undefined;
  toggle: (event: MouseEvent) => void;
}

function Cells({ row, model, zone, depth, open, toggle }: CellProps) {
  const { messages, records } = model.detail;
  const indent = { paddingLeft: Math.min(depth, 12) * 16 };
  const twist =
    open === undefined ? (
      <i className="twist" />
    ) : (
      <button
        type="button"
        className="twist"
        tabIndex={-1}
        aria-label={open ? "Fold" : "Unfold"}
        onClick={toggle}
        data-open={open}
      />
    );
  if (row.kind === "fold")
    return (
      <>
        <span role="gridcell" className="num muted" />
        <span role="gridcell" style={indent} className="wide">
          {twist}
          <b>
            ×{count(row.fold.members.length)} {row.fold.type}
          </b>
          <span className="muted">
            {row.fold.publisher ? ` from ${row.fold.publisher}` : ""}, all without a problem
            {row.fold.failed > 0 && `; ${count(row.fold.failed)} with one shown apart`}
          </span>
        </span>
      </>
    );
  if (row.kind === "others")
    return (
      <>
        <span role="gridcell" className="num muted" />
        <span role="gridcell" className="wide">
          {twist}
          <b>{count(model.others.length)} other records</b>
          <span className="muted"> of no message: sessions, queues, transactions, gaps</span>
        </span>
      </>
    );
  if (row.kind === "record") {
    const record = records[row.record] as HistoryRecord;
    const message = row.message === null ? undefined : messages[row.message];
    return (
      <>
        <span role="gridcell" className="num muted">
          {clock(ms(record.at), zone)}
        </span>
        <span role="gridcell" style={indent}>
          <i className="twist" />
          <OutcomeOf record={record} />
          {record.kind}
        </span>
        <span role="gridcell" className="wide muted">
          {sentence(record, message)}
        </span>
      </>
    );
  }
  const message = messages[row.index] as Message;
  const start = startOf(message, records);
  return (
    <>
      <span role="gridcell" className="num muted">
        {clock(start, zone)}
      </span>
      <span role="gridcell" style={indent} className="name">
        {twist}
        {message.state && message.state !== "healthy" && <StateGlyph state={message.state} size={13} />}
        <b>{message.event_type ?? "message"}</b>
      </span>
      <span role="gridcell">
        {message.publisher ?? <i>not seen</i>}
        <span className="muted">
          {" → "}
          <SystemMark system={message.system} /> {shortPlace(message)}
        </span>
      </span>
      <span role="gridcell">
        <Chips message={message} most={3} />
        {message.note && !message.handlings.length && <span className="muted"> {message.note}</span>}
      </span>
    </>
  );
}

const OutcomeOf = ({ record }: { record: HistoryRecord }) =>
  record.outcome ? <OutcomeGlyph outcome={record.outcome} /> : <i className={`dot kind-${record.kind}`} />;

/** What one record says, as a sentence. */
export function sentence(record: HistoryRecord, message: Message | undefined): string {
  if (isKafka(record)) return kafkaSentence(record, message);
  const who = record.service ?? record.agent;
  const place = String(record.subscription ?? record.destination ?? "");
  const published = message?.published_at ? ms(message.published_at) : null;
  switch (record.kind) {
    case "publish":
      return `${who} to ${record.destination || "the default exchange"}${record.routing_key ? `, key ${record.routing_key}` : ""}`;
    case "confirm":
      return record.outcome === "confirmed"
        ? "the broker took it"
        : `the broker refused it${reasonOf(record)}`;
    case "return":
      return `no queue took it${reasonOf(record)}`;
    case "deliver": {
      const waited =
        published !== null && !record.redelivered ? `, waited ${duration(ms(record.at) - published)}` : "";
      return `to ${who} from ${place}${record.redelivered ? ", again" : ""}${waited}`;
    }
    case "settle": {
      if (record.outcome === "auto") return `${who} acknowledges as it receives (auto-ack)`;
      const took = typeof record.took_us === "number" ? ` after ${duration(record.took_us / 1000)}` : "";
      return `${who} ${record.outcome ?? "settled"} it${took}${reasonOf(record)}`;
    }
    default:
      return (
        [who, kindWord[record.kind] ?? record.kind, record.outcome, place].filter(Boolean).join(" ") +
        reasonOf(record)
      );
  }
}

function kafkaSentence(record: HistoryRecord, message: Message | undefined): string {
  const who = record.service ?? record.agent;
  const group = record.subscription ? `group ${record.subscription}` : "no group";
  const where = longPlace(placeOf(record));
  switch (record.kind) {
    case "publish":
      return `${who} to ${where}${record.routing_key ? `, key ${record.routing_key}` : ""}`;
    case "confirm":
      return record.outcome === "confirmed"
        ? `the broker wrote it to ${where}`
        : `the broker refused it${reasonOf(record)}`;
    case "deliver": {
      const published = message?.published_at ? ms(message.published_at) : null;
      const waited =
        published !== null && !record.redelivered ? `, waited ${duration(ms(record.at) - published)}` : "";
      return `to ${who}, ${group}, from ${shortPlace(placeOf(record))}${record.redelivered ? ", again" : ""}${waited}`;
    }
    case "settle": {
      const took = typeof record.took_us === "number" ? ` after ${duration(record.took_us / 1000)}` : "";
      const what = record.outcome === "committed" ? "committed past it" : `${record.outcome ?? "settled"} it`;
      return `${who} ${what}${took}${reasonOf(record)}`;
    }
    case "position":
      return `${group} goes on with ${where}`;
    case "transaction":
      return `${who}'s transaction was ${record.outcome ?? "ended"}${reasonOf(record)}`;
    default:
      return (
        [who, kindWord[record.kind] ?? record.kind, record.outcome].filter(Boolean).join(" ") +
        `${record.subscription ? `, ${group}` : ""}${record.destination ? `, ${where}` : ""}` +
        reasonOf(record)
      );
  }
}

const reasonOf = (record: HistoryRecord) => (record.reason ? `: ${record.reason}` : "");
