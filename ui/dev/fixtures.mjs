// Serves hand-made answers in the shape of the API, so that every state of the page can be seen without a
// broker: an online car maker's orders, one of them rejected at the factory, others late, running, unknown.
// Development only. PARTS=1900 makes the large flow one of 10 000 records. `npm run fixtures`, then `npm run dev`; or with --dist it serves the built page too.
// /__mode?m=ok|empty|error|slow switches how it answers.
import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { coverageOf, emptyCoverage, makeAgents } from "./fixtures/agents.mjs";
import { makeFlows, whyMessages } from "./fixtures/flows.mjs";

const port = Number(process.env.PORT ?? 5198);
const dist = join(fileURLToPath(new URL("..", import.meta.url)), "dist");
const withPage = process.argv.includes("--dist");
let mode = "ok";

const flows = makeFlows(Date.now());
const byId = new Map(flows.map((flow) => [flow.summary.flow, flow]));

const coverage = () => (mode === "empty" ? emptyCoverage() : coverageOf(makeAgents(Date.now())));

function listFlows(query) {
  if (mode === "empty") return { flows: [], next: null, searched_to: null, coverage: coverage() };
  const states = query.getAll("state");
  const text = (query.get("text") ?? "").toLowerCase();
  const limit = Math.min(Number(query.get("limit") ?? 50), 200);
  const start = Number(query.get("cursor") ?? 0);
  const matching = flows
    .map((flow) => flow.summary)
    .filter(
      (flow) =>
        (!states.length || states.includes(flow.state)) &&
        (!query.get("service") || flow.services.includes(query.get("service"))) &&
        (!query.get("type") || flow.type === query.get("type") || flow.command === query.get("type")) &&
        (!query.get("from") || flow.started_at >= query.get("from")) &&
        (!query.get("to") || flow.started_at <= query.get("to")) &&
        (!query.get("key") || flow.keys.some((key) => key.value === query.get("key"))) &&
        (!text || JSON.stringify(flow).toLowerCase().includes(text)),
    )
    .sort((a, b) => (a.started_at < b.started_at ? 1 : -1));
  const end = start + limit;
  return {
    flows: matching.slice(start, end),
    next: end < matching.length ? String(end) : null,
    searched_to: states.length && states.includes("suspect") ? flows.at(-1).summary.started_at : null,
    coverage: coverage(),
  };
}

function why(id) {
  const nothing = {
    found: "nothing",
    matched: [],
    flow: null,
    messages: [],
    records: [],
    explanation: null,
    coverage: coverage(),
  };
  if (mode === "empty") return nothing;
  if (id === "order-7") {
    const { messages, records } = whyMessages(Date.now());
    return {
      ...nothing,
      found: "messages",
      matched: [{ by: "key", name: "order_id", value: id, flow: null, count: messages.length }],
      messages,
      records,
      explanation: `${messages.length} messages carry order_id ${id}. They share no transaction id and no causation id: they are no flow.`,
    };
  }
  const matched = [];
  for (const flow of flows) {
    const key = flow.summary.keys.find((k) => k.value === id);
    const event = flow.messages.find((message) => message.event_id === id);
    if (flow.summary.flow === id)
      matched.push({ by: "transaction_id", name: null, value: id, flow: id, count: flow.messages.length });
    else if (event)
      matched.push({ by: "event_id", name: null, value: id, flow: flow.summary.flow, count: 1 });
    else if (key)
      matched.push({
        by: "key",
        name: key.name,
        value: id,
        flow: flow.summary.flow,
        count: flow.messages.length,
      });
  }
  if (!matched.length) return nothing;
  return { ...nothing, found: "flow", matched, flow: withCoverage(byId.get(matched[0].flow)) };
}

const withCoverage = (flow) => ({ ...flow, coverage: coverage() });

function answer(url) {
  if (mode === "error")
    return [
      503,
      {
        error: {
          code: "store_unavailable",
          message:
            "The store did not answer within 5 s. It is asked again at each request; nothing was lost.",
        },
      },
    ];
  const path = url.pathname.slice("/api/v1".length);
  if (path === "/flows") return [200, listFlows(url.searchParams)];
  if (path.startsWith("/flows/")) {
    const id = decodeURIComponent(path.slice("/flows/".length));
    const flow = byId.get(id);
    if (!flow) return [404, { error: { code: "not_found", message: `No flow has the id ${id}.` } }];
    return [200, withCoverage(flow)];
  }
  if (path === "/why") return [200, why(url.searchParams.get("id") ?? "")];
  if (path === "/agents")
    return [
      200,
      mode === "empty"
        ? { agents: [], coverage: emptyCoverage() }
        : { agents: makeAgents(Date.now()), coverage: coverage() },
    ];
  return [404, { error: { code: "not_found", message: `There is no ${url.pathname}.` } }];
}

const types = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
  ".woff2": "font/woff2",
};

function sendPage(url, response) {
  let file = join(dist, normalize(url.pathname));
  if (!file.startsWith(dist) || !existsSync(file) || !statSync(file).isFile())
    file = join(dist, "index.html");
  response.writeHead(200, {
    "content-type": types[extname(file)] ?? "application/octet-stream",
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'",
  });
  // A build that runs beside it takes the files away for a moment.
  createReadStream(file)
    .on("error", () => response.end())
    .pipe(response);
}

createServer((request, response) => {
  const url = new URL(request.url, "http://fixtures");
  if (url.pathname === "/__mode") {
    mode = url.searchParams.get("m") ?? "ok";
    return response.end(`${mode}\n`);
  }
  if (!url.pathname.startsWith("/api/")) {
    if (withPage) return sendPage(url, response);
    return response.writeHead(404).end();
  }
  const [status, body] = answer(url);
  const send = () => {
    response.writeHead(status, { "content-type": "application/json" });
    response.end(JSON.stringify(body));
  };
  if (mode === "slow") setTimeout(send, 60_000);
  else setTimeout(send, 30);
}).listen(port, "127.0.0.1", () => console.log(`fixtures on http://127.0.0.1:${port}`));
