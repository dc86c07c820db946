// The names that the page uses for the API's answers. Their shapes are generated from openapi.json, which
// the query service writes: `npm run types` after it changed.
import type { components } from "./schema";

export type { paths } from "./schema";

type Schemas = components["schemas"];

export type State = Schemas["State"];
export type Coverage = Schemas["Coverage"];
export type RowRef = Schemas["RowRef"];
export type Verdict = Schemas["Verdict"];
export type FlowSummary = Schemas["FlowSummary"];
export type FlowPage = Schemas["FlowList"];
export type FlowDetail = Schemas["FlowDetail"];
export type Message = Schemas["Message"];
export type Handling = Schemas["Handling"];
export type Edge = Schemas["Edge"];
/** One row of history; every other column that is not null comes under its own name. */
export type HistoryRecord = Schemas["Record"];
export type Match = Schemas["Matched"];
export type Why = Schemas["Why"];
export type Agent = Schemas["Agent"];
export type Agents = Schemas["AgentList"];
export type ApiErrorBody = Schemas["ErrorAnswer"];
