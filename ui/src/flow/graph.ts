// The causal graph's layout: a column for each step from the root, children beside their cause, causes
// centred on what they caused. Equal siblings without a problem are one box. Pure; Graph.tsx draws it.
import type { FlowModel, Fold } from "./model";
import { findFolds } from "./model";

export interface GraphNode {
  key: string;
  /** The message, or the first of a fold. */
  message: number;
  fold: Fold | null;
  x: number;
  y: number;
}

export interface GraphLink {
  from: GraphNode;
  to: GraphNode;
  /** Not the first cause: drawn thin. */
  second: boolean;
}

export interface GraphLayout {
  nodes: GraphNode[];
  links: GraphLink[];
  width: number;
  height: number;
  nodeOf: Map<number, GraphNode>;
}

export const NODE = { width: 218, height: 76, columnGap: 56, rowGap: 14 };

export function layOutGraph(model: FlowModel, opened: ReadonlySet<string>): GraphLayout {
  const { foldOf } = findFolds(model);
  const nodes: GraphNode[] = [];
  const nodeOf = new Map<number, GraphNode>();
  const foldNodes = new Map<string, GraphNode>();
  const kids = new Map<GraphNode, GraphNode[]>();
  const roots: GraphNode[] = [];

  for (const index of model.order) {
    const cause = model.parent[index];
    const above = cause === null || cause === undefined ? undefined : nodeOf.get(cause);
    // What a folded message caused is folded with it.
    if (above?.fold) {
      nodeOf.set(index, above);
      continue;
    }
    const fold = foldOf.get(index);
    const closed = fold && !opened.has(fold.key) ? fold : null;
    const known = closed ? foldNodes.get(closed.key) : undefined;
    if (known) {
      nodeOf.set(index, known);
      continue;
    }
    const node: GraphNode = { key: closed?.key ?? String(index), message: index, fold: closed, x: 0, y: 0 };
    if (closed) foldNodes.set(closed.key, node);
    nodes.push(node);
    nodeOf.set(index, node);
    kids.set(node, []);
    if (above) kids.get(above)?.push(node);
    else roots.push(node);
    node.x = above ? above.x + NODE.width + NODE.columnGap : 0;
  }

  // Leaves take the next free row, causes stand in the middle of what they caused. `order` is depth first,
  // so leaves come in reading order and every child is placed before its cause is, walking backwards.
  let y = 0;
  for (const node of nodes)
    if (!kids.get(node)?.length) {
      node.y = y;
      y += NODE.height + NODE.rowGap;
    }
  for (const node of nodes.toReversed()) {
    const below = kids.get(node) as GraphNode[];
    if (below.length) node.y = ((below[0] as GraphNode).y + (below.at(-1) as GraphNode).y) / 2;
  }

  const links: GraphLink[] = [];
  const drawn = new Set<string>();
  for (const edge of model.detail.edges) {
    const from = nodeOf.get(edge.from);
    const to = nodeOf.get(edge.to);
    if (!from || !to || from === to) continue;
    const key = `${from.key}>${to.key}`;
    if (drawn.has(key)) continue;
    drawn.add(key);
    links.push({ from, to, second: model.parent[edge.to] !== edge.from });
  }
  return {
    nodes,
    links,
    nodeOf,
    width: Math.max(0, ...nodes.map((node) => node.x + NODE.width)),
    height: Math.max(NODE.height, y - NODE.rowGap),
  };
}
