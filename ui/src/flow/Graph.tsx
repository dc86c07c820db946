// The causal graph: who caused what. Boxes are buttons, so that keys and screen readers reach them; arrow
// keys go along the edges.
import { type KeyboardEvent, useEffect, useLayoutEffect, useMemo, useRef } from "react";
import type { Handling, Message } from "../api/types";
import { OutcomeGlyph, StateGlyph, SystemMark } from "../components/Glyph";
import { isKafka, shortPlace } from "../lib/places";
import { clock, ms } from "../lib/time";
import { count, outcomeWord, toneIn, toneOfOutcome, toneOfState } from "../lib/words";
import { useSettings } from "../settings";
import { type GraphNode, layOutGraph, NODE } from "./graph";
import { type FlowModel, pathTo } from "./model";

interface Props {
  model: FlowModel;
  selected: number | null;
  opened: ReadonlySet<string>;
  onOpen(key: string): void;
  onSelect(message: number): void;
}

const MARGIN = 20;

export function Graph({ model, selected, opened, onOpen, onSelect }: Props) {
  const { zone } = useSettings();
  const scroller = useRef<HTMLElement>(null);
  const layout = useMemo(() => layOutGraph(model, opened), [model, opened]);
  const path = useMemo(() => new Set(selected === null ? [] : pathTo(model, selected)), [model, selected]);
  const current = selected === null ? undefined : layout.nodeOf.get(selected);

  // Brings the selection into view without moving what is already seen.
  useLayoutEffect(() => {
    const element = scroller.current;
    if (!element || !current) return;
    const left = current.x + MARGIN;
    const top = current.y + MARGIN;
    const seen =
      left >= element.scrollLeft &&
      left + NODE.width <= element.scrollLeft + element.clientWidth &&
      top >= element.scrollTop &&
      top + NODE.height <= element.scrollTop + element.clientHeight;
    if (!seen)
      element.scrollTo({
        left: left - element.clientWidth / 2 + NODE.width / 2,
        top: top - element.clientHeight / 2 + NODE.height / 2,
      });
  }, [current]);

  const focus = useRef(false);
  useEffect(() => {
    if (focus.current) scroller.current?.querySelector<HTMLElement>('[aria-current="true"]')?.focus();
    focus.current = false;
  });

  const press = (event: KeyboardEvent, node: GraphNode) => {
    const next = neighbour(event.key, node, layout.nodes, model, layout.nodeOf);
    if (!next) return;
    event.preventDefault();
    event.stopPropagation();
    focus.current = true;
    onSelect(next.message);
  };

  const isOnPath = (node: GraphNode) => path.has(node.message) && !node.fold;
  return (
    <section className="graph" ref={scroller} aria-label="Which message caused which">
      <div
        className="graph-plane"
        style={{ width: layout.width + 2 * MARGIN, height: layout.height + 2 * MARGIN }}
      >
        <svg width={layout.width + 2 * MARGIN} height={layout.height + 2 * MARGIN} aria-hidden="true">
          {layout.links.map(({ from, to, second }) => (
            <path
              key={`${from.key}>${to.key}`}
              d={curve(from, to)}
              className={`${second ? "second" : ""} ${isOnPath(from) && isOnPath(to) ? "on-path" : ""}`}
            />
          ))}
        </svg>
        {layout.nodes.map((node) => {
          const message = model.detail.messages[node.message] as Message;
          const style = {
            left: node.x + MARGIN,
            top: node.y + MARGIN,
            width: NODE.width,
            height: NODE.height,
          };
          if (node.fold)
            return (
              <button
                key={node.key}
                type="button"
                className="node fold"
                style={style}
                onClick={() => onOpen(node.fold?.key ?? "")}
                title="Show them one by one"
              >
                <b>
                  ×{count(node.fold.members.length)} {node.fold.type}
                </b>
                <span className="muted">
                  {node.fold.publisher ?? "not seen being published"}
                  {node.fold.failed > 0 && `, ${count(node.fold.failed)} with a problem shown apart`}
                </span>
                <span className="muted">all handled; click to unfold</span>
              </button>
            );
          const bad = model.problems.has(node.message);
          return (
            <button
              key={node.key}
              type="button"
              className={`node ${bad ? `problem ${toneClass(message)}` : ""} ${path.has(node.message) ? "on-path" : ""}`}
              style={style}
              aria-current={node.message === selected}
              onClick={() => onSelect(node.message)}
              onKeyDown={(event) => press(event, node)}
            >
              <b>
                {message.state && message.state !== "healthy" && (
                  <StateGlyph state={message.state} size={13} />
                )}
                {message.event_type ?? "message"}
              </b>
              <span className="muted">
                {message.publisher ?? "?"} → <SystemMark system={message.system} /> {shortPlace(message)}
                {message.published_at && (
                  <span className="num"> {clock(ms(message.published_at), zone)}</span>
                )}
              </span>
              <Chips message={message} />
            </button>
          );
        })}
      </div>
    </section>
  );
}

/** The tone of the verdict on a message: red is for what is broken. */
const toneClass = ({ state }: Message) =>
  state && state !== "healthy" ? `tone-${toneOfState[state]}` : "tone-broken";

/** Who handled a message and how it ended, the failures first. */
export function Chips({ message, most = 4 }: { message: Message; most?: number }) {
  const { handlings, publish_outcome: outcome } = message;
  if (toneOfOutcome(outcome) === "broken")
    return (
      <span className="chips">
        <span className={`chip tone-${toneIn(message, outcome)}`}>
          <OutcomeGlyph outcome={outcome} tone={toneIn(message, outcome)} />
          {outcome}
        </span>
      </span>
    );
  if (!handlings.length)
    return (
      <span className="chips">
        <span className="chip muted">
          {isKafka(message) ? "nobody was seen to read it" : "nobody received it"}
        </span>
      </span>
    );
  const weight = (handling: Handling) =>
    toneOfOutcome(handling.outcome) === "ok" ? (handling.outcome === "auto" ? 2 : 1) : 0;
  const alike = new Map<string, { handling: Handling; times: number }>();
  for (const handling of handlings.toSorted((a, b) => weight(a) - weight(b))) {
    const key = `${handling.service} ${handling.outcome}`;
    const known = alike.get(key);
    if (known) known.times++;
    else alike.set(key, { handling, times: 1 });
  }
  const chips = [...alike.entries()];
  return (
    <span className="chips">
      {chips.slice(0, most).map(([key, { handling, times }]) => (
        <span
          key={key}
          className={`chip tone-${toneIn(message, handling.outcome)}`}
          title={`${handling.service} ${outcomeWord(handling)}`}
        >
          <OutcomeGlyph outcome={handling.outcome} tone={toneIn(message, handling.outcome)} />
          {handling.service ?? "?"}
          {times > 1 && ` ×${count(times)}`}
        </span>
      ))}
      {chips.length > most && <span className="chip muted">+{chips.length - most}</span>}
    </span>
  );
}

function curve(from: GraphNode, to: GraphNode): string {
  const x0 = from.x + NODE.width + MARGIN;
  const y0 = from.y + NODE.height / 2 + MARGIN;
  const x1 = to.x + MARGIN;
  const y1 = to.y + NODE.height / 2 + MARGIN;
  const bend = Math.max(NODE.columnGap / 2, Math.min(Math.abs(x1 - x0) / 2, NODE.columnGap));
  return `M${x0} ${y0}C${x0 + bend} ${y0} ${x1 - bend} ${y1} ${x1} ${y1}`;
}

function neighbour(
  key: string,
  node: GraphNode,
  nodes: GraphNode[],
  model: FlowModel,
  nodeOf: Map<number, GraphNode>,
) {
  if (key === "ArrowLeft") {
    const cause = model.parent[node.message];
    return cause === null || cause === undefined ? undefined : nodeOf.get(cause);
  }
  if (key === "ArrowRight") {
    const first = model.children[node.message]?.[0];
    return first === undefined ? undefined : nodeOf.get(first);
  }
  const column = nodes.filter((one) => one.x === node.x && !one.fold).sort((a, b) => a.y - b.y);
  const at = column.indexOf(node);
  if (key === "ArrowUp") return column[at - 1];
  if (key === "ArrowDown") return column[at + 1];
  return undefined;
}
