// One row model behind every picture of a flow: which message caused which, in what order a reader should
// meet them, what is folded, and what one record says. Pure functions of the API's answer.
import type { FlowDetail, HistoryRecord, Message } from "../api/types";
import { ms } from "../lib/time";
import { isProblem } from "../lib/words";

export interface FlowModel {
  detail: Pick<FlowDetail, "messages" | "edges" | "records">;
  /** Causes first, children by time. */
  order: number[];
  parent: (number | null)[];
  children: number[][];
  depth: number[];
  problems: Set<number>;
  /** Message of each record; null: it belongs to none. */
  messageOf: (number | null)[];
  others: number[];
  recordAt: Map<string, number>;
}

export const refOf = (record: { boot: string; seq: number }) => `${record.boot}.${record.seq}`;

export function startOf(message: Message, records: HistoryRecord[]): number {
  if (message.published_at) return ms(message.published_at);
  const first = records[message.records[0] ?? 0];
  return first ? ms(first.at) : 0;
}

export function buildModel(detail: FlowModel["detail"]): FlowModel {
  const { messages, edges, records } = detail;
  const parent = new Array<number | null>(messages.length).fill(null);
  const children = messages.map(() => [] as number[]);
  for (const edge of edges)
    if (parent[edge.to] === null && edge.from !== edge.to) parent[edge.to] = edge.from;
  const starts = messages.map((message) => startOf(message, records));
  const byTime = messages.map((_, i) => i).sort((a, b) => (starts[a] as number) - (starts[b] as number));
  for (const index of byTime) {
    const cause = parent[index];
    if (cause !== null && cause !== undefined) children[cause]?.push(index);
  }

  const order: number[] = [];
  const depth = new Array<number>(messages.length).fill(0);
  const seen = new Set<number>();
  const visit = (root: number) => {
    const stack: [number, number][] = [[root, 0]];
    for (let top = stack.pop(); top; top = stack.pop()) {
      const [index, level] = top;
      if (seen.has(index)) continue;
      seen.add(index);
      order.push(index);
      depth[index] = level;
      for (const child of (children[index] as number[]).toReversed()) stack.push([child, level + 1]);
    }
  };
  for (const index of byTime) if (parent[index] === null) visit(index);
  // What is left hangs in a circle of causes; a reader still wants to see it.
  for (const index of byTime) visit(index);

  const messageOf = new Array<number | null>(records.length).fill(null);
  for (const message of messages) for (const index of message.records) messageOf[index] = message.index;
  return {
    detail,
    order,
    parent,
    children,
    depth,
    problems: new Set(messages.filter(isProblem).map((message) => message.index)),
    messageOf,
    others: records.map((_, i) => i).filter((i) => messageOf[i] === null),
    recordAt: new Map(records.map((record, i) => [refOf(record), i])),
  };
}

/** The causes of a message from the root to itself. */
export function pathTo(model: FlowModel, index: number): number[] {
  const path: number[] = [];
  const seen = new Set<number>();
  for (
    let at: number | null | undefined = index;
    at !== null && at !== undefined && !seen.has(at);
    at = model.parent[at]
  ) {
    seen.add(at);
    path.unshift(at);
  }
  return path;
}

/** Siblings alike in type and publisher that are folded into one when there are more than this. */
const FOLD_ABOVE = 8;

export interface Fold {
  key: string;
  type: string;
  publisher: string | null;
  members: number[];
  /** Members that failed; they are shown beside the fold, never in it. */
  failed: number;
}

/** The folds of a flow: equal siblings, those with a problem below them left out. */
export function findFolds(model: FlowModel): { folds: Fold[]; foldOf: Map<number, Fold> } {
  const { messages } = model.detail;
  const troubled = new Set<number>();
  for (const problem of model.problems) for (const index of pathTo(model, problem)) troubled.add(index);
  const folds: Fold[] = [];
  const foldOf = new Map<number, Fold>();
  const roots = model.order.filter((index) => model.parent[index] === null);
  for (const [cause, siblings] of [
    ["root", roots] as const,
    ...model.children.map((all, i) => [String(i), all] as const),
  ]) {
    if (siblings.length <= FOLD_ABOVE) continue;
    const groups = new Map<string, number[]>();
    for (const i of siblings) {
      const alike = `${messages[i]?.event_type} ${messages[i]?.publisher}`;
      const group = groups.get(alike);
      if (group) group.push(i);
      else groups.set(alike, [i]);
    }
    for (const [alike, group] of groups) {
      const quiet = group.filter((i) => !troubled.has(i));
      if (quiet.length <= FOLD_ABOVE) continue;
      const first = messages[quiet[0] as number] as Message;
      const fold: Fold = {
        key: `${cause} ${alike}`,
        type: first.event_type ?? "message",
        publisher: first.publisher,
        members: quiet,
        failed: group.length - quiet.length,
      };
      folds.push(fold);
      for (const index of quiet) foldOf.set(index, fold);
    }
  }
  return { folds, foldOf };
}

export type Row =
  | { kind: "message"; key: string; index: number; depth: number; open: boolean }
  | { kind: "record"; key: string; record: number; message: number | null; depth: number }
  | { kind: "fold"; key: string; fold: Fold; depth: number; open: boolean }
  | { kind: "others"; key: string; open: boolean };

export interface RowOptions {
  opened: ReadonlySet<string>;
  filter: string;
  problemsOnly: boolean;
}

export const messageKey = (model: FlowModel, index: number) => {
  const first = model.detail.records[model.detail.messages[index]?.records[0] ?? -1];
  return first ? `m.${refOf(first)}` : `m.${index}`;
};

function haystack(message: Message): string {
  const {
    event_type,
    event_id,
    causation_id,
    publisher,
    destination,
    routing_key,
    publish_outcome,
    handlings,
    keys,
  } = message;
  return [
    event_type,
    event_id,
    causation_id,
    publisher,
    destination,
    routing_key,
    publish_outcome,
    ...handlings.flatMap((h) => [h.service, h.subscription, h.outcome, h.reason]),
    ...keys.map((key) => key.value),
  ]
    .join("\n")
    .toLowerCase();
}

/** The rows as they are shown; `hidden` counts the messages that the filter took away. */
export function buildRows(
  model: FlowModel,
  { opened, filter, problemsOnly }: RowOptions,
): { rows: Row[]; hidden: number } {
  const { messages } = model.detail;
  const { foldOf } = findFolds(model);
  const wanted = filter.trim().toLowerCase();
  const pruned = wanted !== "" || problemsOnly;
  const rows: Row[] = [];
  let hidden = 0;
  const shownFolds = new Set<string>();
  // Below a closed fold nothing is shown: the depth of the closed fold's member, until the walk leaves it.
  let closedDepth: number | null = null;

  for (const index of model.order) {
    const message = messages[index] as Message;
    const depth = model.depth[index] as number;
    if (pruned) {
      if ((problemsOnly && !model.problems.has(index)) || (wanted && !haystack(message).includes(wanted))) {
        hidden++;
        continue;
      }
    } else {
      if (closedDepth !== null) {
        if (depth > closedDepth) continue;
        closedDepth = null;
      }
      const fold = foldOf.get(index);
      if (fold) {
        const open = opened.has(fold.key);
        if (!shownFolds.has(fold.key)) {
          shownFolds.add(fold.key);
          rows.push({ kind: "fold", key: fold.key, fold, depth, open });
        }
        if (!open) {
          closedDepth = depth;
          continue;
        }
      }
    }
    const key = messageKey(model, index);
    const open = opened.has(key);
    rows.push({ kind: "message", key, index, depth, open });
    if (!open) continue;
    for (const record of message.records) {
      const row = model.detail.records[record];
      if (row) rows.push({ kind: "record", key: refOf(row), record, message: index, depth: depth + 1 });
    }
  }
  if (model.others.length && !pruned) {
    const open = opened.has("others");
    rows.push({ kind: "others", key: "others", open });
    if (open)
      for (const record of model.others) {
        const row = model.detail.records[record];
        if (row) rows.push({ kind: "record", key: refOf(row), record, message: null, depth: 1 });
      }
  }
  return { rows, hidden };
}
