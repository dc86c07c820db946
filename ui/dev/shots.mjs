// Takes a picture of every page and state, light and dark, 1280 and 1920 wide, into shots/, and runs axe on
// each. Wants the fixtures with the built page: `npm run build && npm run fixtures -- --dist`, or any other
// server at UI_URL. `npm run shots -- flow` takes only those with "flow" in their name.
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const base = process.env.UI_URL ?? "http://127.0.0.1:5198";
const only = process.argv[2] ?? "";
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
mkdirSync("shots", { recursive: true });

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--force-color-profile=srgb"],
});

const list = await (await fetch(`${base}/api/v1/flows?limit=200`)).json();
const flowOf = (test) => list.flows.find(test)?.flow;
const flow = (test, rest = "") => `/flows/${encodeURIComponent(flowOf(test) ?? "none")}${rest}`;
const at = (reason) => (one) => one.reason === reason;

const pages = [
  ["flows", "/"],
  ["flows-filtered", "/?state=broken&state=late&range=6h"],
  ["flows-nomatch", "/?text=unheard-of&range=15m"],
  ["flow-broken", flow(at("rejected"))],
  ["flow-graph", flow(at("rejected"), "?view=graph")],
  ["flow-unroutable", flow(at("unroutable"))],
  ["flow-late", flow(at("waiting"))],
  ["flow-running", flow((one) => one.state === "running")],
  ["flow-retried", flow(at("requeued"))],
  ["flow-suspect", flow((one) => one.state === "suspect")],
  ["flow-unknown", flow((one) => one.state === "unknown")],
  ["flow-healthy", flow((one) => one.state === "healthy")],
  ["flow-large", flow((one) => one.records > 1000)],
  ["flow-large-graph", flow((one) => one.records > 1000, "?view=graph")],
  ["flow-missing", "/flows/no-such-flow"],
  ["why-one", "/?id=order-1042"],
  ["why-many", "/?id=EC-00417"],
  ["why-messages", "/?id=order-7"],
  ["why-nothing", "/?id=order-9999"],
  ["coverage", "/agents"],
  ["help", "/", async (page) => page.keyboard.press("?")],
  ["record", flow(at("rejected")), async (page) => page.locator(".evidence button").last().click()],
  ["empty", "/", null, "empty"],
  ["empty-coverage", "/agents", null, "empty"],
  ["error", "/", null, "error"],
  ["loading", "/", null, "slow"],
  ["loading-flow", flow(at("rejected")), null, "slow"],
];

let failures = 0;
for (const [name, path, act, mode] of pages) {
  if (!name.includes(only)) continue;
  if (mode) await fetch(`${base}/__mode?m=${mode}`);
  for (const colorScheme of ["light", "dark"])
    for (const [width, height] of [
      [1280, 800],
      [1920, 1080],
    ]) {
      const context = await browser.newContext({
        viewport: { width, height },
        colorScheme,
        timezoneId: "Europe/Berlin",
      });
      const page = await context.newPage();
      const said = [];
      page.on("console", (message) => message.type() === "error" && said.push(message.text()));
      page.on("pageerror", (error) => said.push(String(error)));
      await page.goto(base + path, { waitUntil: mode === "slow" ? "commit" : "networkidle" });
      await page.waitForTimeout(mode === "error" ? 1_500 : 350);
      if (act) {
        await act(page);
        await page.waitForTimeout(250);
      }
      await page.screenshot({ path: `shots/${name}-${colorScheme}-${width}.png` });
      const expected = mode === "error" || name === "flow-missing";
      if (!expected && said.length) {
        failures++;
        console.log(`${name} ${colorScheme} ${width}: console: ${said.join(" | ")}`);
      }
      if (width === 1280) {
        await page.evaluate(axe);
        const { violations } = await page.evaluate(() => globalThis.axe.run());
        for (const violation of violations) {
          failures++;
          const where = violation.nodes
            .slice(0, 3)
            .map((node) => `${node.target} ${node.failureSummary?.split("\n")[1]?.trim() ?? ""}`);
          console.log(
            `${name} ${colorScheme}: axe ${violation.id} (${violation.nodes.length}): ${where.join(" ; ")}`,
          );
        }
      }
      await context.close();
    }
  if (mode) await fetch(`${base}/__mode?m=ok`);
}
await browser.close();
console.log(failures ? `${failures} problems` : "no problems");
process.exitCode = failures ? 1 : 0;
