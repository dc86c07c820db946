// The routes and what their URLs may say. Search parameters are plain strings, never JSON: an order number
// of twenty digits must come through as it was typed.
import { createRootRoute, createRoute, createRouter } from "@tanstack/react-router";
import type { State } from "./api/types";
import { Shell } from "./components/Shell";
import { STATES } from "./lib/words";
import { AgentsPage } from "./pages/AgentsPage";
import { FlowPage } from "./pages/FlowPage";
import { FlowsPage } from "./pages/FlowsPage";
import { NotFound } from "./pages/NotFound";

type Raw = Record<string, unknown>;

export function parseSearch(text: string): Raw {
  const found: Record<string, string | string[]> = {};
  for (const [name, value] of new URLSearchParams(text)) {
    const before = found[name];
    found[name] = before === undefined ? value : [before, value].flat();
  }
  return found;
}

export function stringifySearch(search: Raw): string {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(search))
    for (const one of [value].flat())
      if (one !== undefined && one !== null && one !== "") params.append(name, String(one));
  const text = params.toString();
  return text ? `?${text}` : "";
}

const text = (value: unknown) => (typeof value === "string" && value ? value : undefined);
const flag = (value: unknown) => (value === "1" ? "1" : undefined);

/** Leaves out what is not there: a parameter that is undefined must not stand in a link's way. */
function compact<T extends Raw>(search: T): Partial<T> {
  return Object.fromEntries(Object.entries(search).filter(([, value]) => value !== undefined)) as Partial<T>;
}

export interface RootSearch {
  tz?: "utc" | "local";
}

export interface FlowsSearch {
  id?: string;
  state?: State[];
  service?: string;
  type?: string;
  text?: string;
  range?: string;
  from?: string;
  to?: string;
}

export interface FlowSearch {
  id?: string;
  sel?: string;
  view?: "graph";
  q?: string;
  problems?: "1";
  linear?: "1";
}

const root = createRootRoute({
  component: Shell,
  notFoundComponent: NotFound,
  validateSearch: (raw: Raw): RootSearch =>
    compact<{ tz: RootSearch["tz"] }>({ tz: raw.tz === "local" || raw.tz === "utc" ? raw.tz : undefined }),
});

export const flowsRoute = createRoute({
  getParentRoute: () => root,
  path: "/",
  component: FlowsPage,
  validateSearch: (raw: Raw): FlowsSearch => {
    const asked = [raw.state].flat();
    const state = STATES.filter((one) => asked.includes(one));
    return compact({
      id: text(raw.id),
      state: state.length ? state : undefined,
      service: text(raw.service),
      type: text(raw.type),
      text: text(raw.text),
      range: text(raw.range),
      from: text(raw.from),
      to: text(raw.to),
    });
  },
});

export const flowRoute = createRoute({
  getParentRoute: () => root,
  path: "/flows/$flow",
  component: FlowPage,
  validateSearch: (raw: Raw): FlowSearch =>
    compact({
      id: text(raw.id),
      sel: text(raw.sel),
      view: raw.view === "graph" ? ("graph" as const) : undefined,
      q: text(raw.q),
      problems: flag(raw.problems) as "1" | undefined,
      linear: flag(raw.linear) as "1" | undefined,
    }),
});

export const agentsRoute = createRoute({
  getParentRoute: () => root,
  path: "/agents",
  component: AgentsPage,
});

export const router = createRouter({
  routeTree: root.addChildren([flowsRoute, flowRoute, agentsRoute]),
  parseSearch,
  stringifySearch,
  defaultPreload: false,
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}
