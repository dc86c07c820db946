// Everything about what is selected: a message with the way it took, one record with all its columns, or,
// with nothing selected, the flow itself.
import { Link } from "@tanstack/react-router";
import type { ReactNode } from "react";
import type { FlowDetail, Handling, HistoryRecord, Message } from "../api/types";
import { Copyable, CopyButton, When } from "../components/bits";
import { OutcomeGlyph, StateMark, SystemMark } from "../components/Glyph";
import { isKafka, isOpen, kafkaColumn, longPlace, nextRead, source, systemNames } from "../lib/places";
import { duration, ms } from "../lib/time";
import { byTelling, count, outcomeWord, plural, toneIn } from "../lib/words";
import type { FlowModel } from "./model";
import { sentence } from "./RecordGrid";

interface Props {
  model: FlowModel;
  detail: FlowDetail | null;
  message: number | null;
  record: number | null;
  onMessage(index: number): void;
  onRecord(index: number): void;
  onClose(): void;
}

type Inner = Omit<Props, "message" | "record">;

export function Panel(props: Props) {
  const { model, detail, message: index, record: recordIndex, onClose } = props;
  const message = index === null ? undefined : model.detail.messages[index];
  const record = recordIndex === null ? undefined : model.detail.records[recordIndex];
  const title = record
    ? record.kind
    : message
      ? (message.event_type ?? "Message")
      : detail
        ? "Flow"
        : "Details";
  return (
    <aside className="panel" aria-label="Details">
      <header>
        <div>
          <h2>{title}</h2>
          {record && message && <p className="muted">of {message.event_type ?? "a message"}</p>}
        </div>
        {(message || record) && (
          <button
            type="button"
            className="button square"
            onClick={onClose}
            aria-label="Close details"
            title="Esc"
          >
            ×
          </button>
        )}
      </header>
      <div className="panel-body">
        {message && recordIndex === null && <MessageDetails {...props} message={message} />}
        {record && <RecordDetails {...props} message={message} record={record} />}
        {!message && !record && detail && <FlowFacts detail={detail} />}
        {!message && !record && !detail && <p className="muted">Choose a row to see everything about it.</p>}
      </div>
    </aside>
  );
}

function Facts({ children }: { children: ReactNode }) {
  return <dl className="facts">{children}</dl>;
}

function Fact({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

function MessageDetails({ message, model, onMessage, onRecord }: Inner & { message: Message }) {
  const cause = model.parent[message.index];
  const causes = cause === null || cause === undefined ? undefined : model.detail.messages[cause];
  const effects = model.children[message.index] ?? [];
  const show = ({ settle, deliver }: Handling) => {
    const index = settle ?? deliver;
    if (index !== null) onRecord(index);
  };
  return (
    <>
      {message.state && (
        <p className="lead">
          <StateMark state={message.state} />
          {message.note && <span> {message.note}</span>}
        </p>
      )}
      <h3>Way</h3>
      <ol className="way">
        <li>
          <OutcomeGlyph outcome={message.publish_outcome} tone={toneIn(message, message.publish_outcome)} />
          <div>
            {message.publisher ? (
              <>
                <b>{message.publisher}</b> published it to <SystemMark system={message.system} />{" "}
                {longPlace(message)}
                {message.routing_key && <span className="muted">, key {message.routing_key}</span>}
              </>
            ) : (
              "its publish was not seen"
            )}
            <div className="muted">
              {message.published_at && <When at={message.published_at} />}
              {message.publish_outcome && ` · ${message.publish_outcome}`}
            </div>
          </div>
        </li>
        {message.handlings.map((handling) => {
          const waited = message.published_at ? ms(handling.delivered_at) - ms(message.published_at) : null;
          return (
            <li key={`${handling.deliver} ${handling.settle}`}>
              <OutcomeGlyph outcome={handling.outcome} tone={toneIn(message, handling.outcome)} />
              <div>
                <button type="button" className="link" onClick={() => show(handling)}>
                  <b>{handling.service ?? "?"}</b>{" "}
                  {isOpen(handling) && nextRead(message, handling)
                    ? "received it, and once more later"
                    : outcomeWord(handling)}
                  {handling.took_us !== null &&
                    handling.outcome !== "auto" &&
                    ` after ${duration(handling.took_us / 1000)}`}
                </button>
                {handling.attempt !== null && handling.attempt > 1 && (
                  <span className="muted"> try {handling.attempt}</span>
                )}
                <div className="muted">
                  <When at={handling.delivered_at} />
                  {waited !== null && !handling.redelivered && ` · waited ${duration(waited)}`} ·{" "}
                  <SystemMark system={handling.system} /> {source(handling)}
                </div>
                {isKafka(handling) && handling.consumer && (
                  <div className="muted">
                    member <span className="mono">{handling.consumer}</span>
                  </div>
                )}
                {handling.reason && <div className="muted">{handling.reason}</div>}
              </div>
            </li>
          );
        })}
        {message.handlings.length === 0 && (
          <li>
            <OutcomeGlyph outcome={null} />
            <div className="muted">
              {isKafka(message) ? "nobody was seen to read it" : "no delivery was seen"}
            </div>
          </li>
        )}
      </ol>
      <h3>Cause and effect</h3>
      <Facts>
        <Fact name="caused by">
          {causes ? (
            <button type="button" className="link" onClick={() => onMessage(causes.index)}>
              {causes.event_type ?? "message"}
            </button>
          ) : (
            <span className="muted">
              {message.causation_id ? "a message that was not seen" : "nothing in this flow"}
            </span>
          )}
        </Fact>
        <Fact name="caused">
          {effects.length === 0 && <span className="muted">nothing was published after it</span>}
          <span className="links">
            {effects.slice(0, 6).map((effect) => (
              <button key={effect} type="button" className="link" onClick={() => onMessage(effect)}>
                {model.detail.messages[effect]?.event_type ?? "message"}
              </button>
            ))}
            {effects.length > 6 && <span className="muted">and {count(effects.length - 6)} more</span>}
          </span>
        </Fact>
      </Facts>
      <h3>Ids</h3>
      <Facts>
        {byTelling(message.keys).map((key) => (
          <Fact key={`${key.name} ${key.value}`} name={key.name}>
            <Copyable value={key.value} />
          </Fact>
        ))}
        {message.event_id && (
          <Fact name="event id">
            <Copyable value={message.event_id} />
          </Fact>
        )}
        {message.transaction_id && (
          <Fact name="flow id">
            <Copyable value={message.transaction_id} />
          </Fact>
        )}
        {message.causation_id && (
          <Fact name="causation id">
            <Copyable value={message.causation_id} />
          </Fact>
        )}
        {message.command && <Fact name="command">{message.command}</Fact>}
        {message.size !== null && <Fact name="size">{count(message.size)} bytes</Fact>}
      </Facts>
      <h3>Records</h3>
      <ul className="record-list">
        {message.records.map((index) => {
          const record = model.detail.records[index] as HistoryRecord;
          return (
            <li key={index}>
              <button type="button" onClick={() => onRecord(index)}>
                <When at={record.at} /> <b>{record.kind}</b>{" "}
                <span className="muted">{sentence(record, message)}</span>
              </button>
            </li>
          );
        })}
      </ul>
    </>
  );
}

/** Columns that the head of a record says already, or that read better first. */
const FIRST = [
  "kind",
  "outcome",
  "reason",
  "service",
  "instance",
  "subscription",
  "destination",
  "routing_key",
  "partition",
  "log_offset",
  "consumer",
  "event_type",
];
const LAST = ["agent", "boot", "seq", "system", "cluster", "vhost", "fingerprint"];

function columnsOf(record: HistoryRecord): [string, unknown][] {
  const rank = (name: string) => {
    const first = FIRST.indexOf(name);
    if (first >= 0) return first - 100;
    const last = LAST.indexOf(name);
    return last >= 0 ? 100 + last : 0;
  };
  return Object.entries(record)
    .filter(([name, value]) => name !== "at" && value !== null && value !== undefined)
    .sort(([a], [b]) => rank(a) - rank(b));
}

function RecordDetails({
  record,
  message,
  model,
  onMessage,
  onRecord,
}: Inner & { record: HistoryRecord; message: Message | undefined }) {
  const siblings = message?.records ?? [];
  const nested = columnsOf(record).filter(([, value]) => typeof value === "object");
  const plain = columnsOf(record).filter(([, value]) => typeof value !== "object");
  return (
    <>
      {message && (
        <div className="tabs">
          <button type="button" className="link" onClick={() => onMessage(message.index)}>
            ← {message.event_type ?? "message"}
          </button>
          {siblings.length <= 12 &&
            siblings.map((index) => {
              const one = model.detail.records[index] as HistoryRecord;
              return (
                <button
                  key={index}
                  type="button"
                  className="tab"
                  aria-pressed={one === record}
                  onClick={() => onRecord(index)}
                  title={`${one.service ?? ""} ${one.outcome ?? ""}`}
                >
                  {one.kind}
                </button>
              );
            })}
        </div>
      )}
      <p className="lead">
        <When at={record.at} /> <span>{sentence(record, message)}</span>
      </p>
      <Facts>
        {plain.map(([name, value]) => (
          <Fact key={name} name={(isKafka(record) && kafkaColumn[name]) || name}>
            {name === "outcome" ? (
              <span className="outcome">
                <OutcomeGlyph outcome={String(value)} /> {String(value)}
              </span>
            ) : (
              <Copyable value={String(value)} />
            )}
          </Fact>
        ))}
      </Facts>
      {nested.map(([name, value]) => (
        <Nested key={name} name={name} value={value} />
      ))}
      <p className="row-actions">
        <CopyButton text={() => JSON.stringify(record, null, 2)}>Copy as JSON</CopyButton>
      </p>
    </>
  );
}

function Nested({ name, value }: { name: string; value: unknown }) {
  const pairs =
    Array.isArray(value) &&
    value.every((one) => one && typeof one === "object" && "name" in one && "value" in one)
      ? (value as { name: string; value: unknown }[])
      : null;
  return (
    <>
      <h3>{name}</h3>
      {pairs ? (
        <Facts>
          {pairs.map((pair, i) => (
            <Fact key={`${pair.name} ${i}`} name={pair.name}>
              <Copyable value={String(pair.value)} />
            </Fact>
          ))}
        </Facts>
      ) : (
        <pre className="mono">{JSON.stringify(value, null, 2)}</pre>
      )}
    </>
  );
}

function FlowFacts({ detail }: { detail: FlowDetail }) {
  const { summary, related } = detail;
  return (
    <>
      <Facts>
        {byTelling(summary.keys).map((key) => (
          <Fact key={`${key.name} ${key.value}`} name={key.name}>
            <Copyable value={key.value} />
          </Fact>
        ))}
        <Fact name="flow id">
          <Copyable value={summary.flow} />
        </Fact>
        {summary.command && <Fact name="command">{summary.command}</Fact>}
        <Fact name="started">
          <When at={summary.started_at} relative />
        </Fact>
        <Fact name="last record">
          <When at={summary.last_at} relative />
        </Fact>
        <Fact name="took so far">{duration(ms(summary.last_at) - ms(summary.started_at))}</Fact>
        <Fact name="size">
          {plural(summary.messages, "message")}, {plural(summary.records, "record")}
        </Fact>
        <Fact name="services">{summary.services.join(", ")}</Fact>
        <Fact name="over">
          {summary.systems.map((system) => systemNames[system] ?? system).join(", then ")}
        </Fact>
      </Facts>
      {related.length > 0 && (
        <>
          <h3>Related flows</h3>
          <ul className="related">
            {related.map((one) => (
              <li key={one.flow}>
                <Link to="/flows/$flow" params={{ flow: one.flow }} className="mono">
                  {one.flow}
                </Link>
                <div className="muted">{one.how}</div>
              </li>
            ))}
          </ul>
        </>
      )}
      <p className="muted">
        Choose a row to see everything about it. J and K go through them, N to the next problem.
      </p>
    </>
  );
}
