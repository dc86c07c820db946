// Somebody with a ticket: opens the page, types the order's number, opens the flow, reads the verdict;
// looks at coverage, too. Prints what was seen as JSON. BROWSER, PAGE, ORDER; SHOTS: a folder for
// pictures, light and dark.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(new URL("../../../ui/package.json", import.meta.url));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const { BROWSER, PAGE, ORDER, SHOTS } = process.env;

const browser = await chromium.launch({ executablePath: BROWSER, args: ["--no-sandbox"] });
const seen = { problems: [] };
for (const colorScheme of ["dark", "light"]) {
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 }, colorScheme });
  page.on("console", (message) => message.type() === "error" && seen.problems.push(message.text()));
  page.on("pageerror", (error) => seen.problems.push(String(error)));
  const verdict = async () => {
    const words = page.locator(".verdict-words").filter({ hasText: /\w/ });
    await words.waitFor();
    return words.innerText();
  };
  const look = async (name) => {
    await page.evaluate(axe);
    const found = await page.evaluate(() => globalThis.axe.run({ resultTypes: ["violations"] }));
    for (const one of found.violations) seen.problems.push(`${name}: ${one.id}: ${one.help}`);
    if (SHOTS) await page.screenshot({ path: `${SHOTS}/${name}-${colorScheme}.png` });
  };

  await page.goto(PAGE, { waitUntil: "networkidle" });
  await page.locator('a[href^="/flows/"]').first().waitFor();
  seen.listed = await page.locator('a[href^="/flows/"]').count();
  await look("flows");

  await page.keyboard.press("/");
  await page.keyboard.type(ORDER);
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/flows\//);
  seen.path = new URL(page.url()).pathname;
  seen.verdict = await verdict();
  seen.evidence = await page.locator(".evidence button").allInnerTexts();
  await look("flow");

  // The address alone shows the same.
  await page.goto(page.url(), { waitUntil: "networkidle" });
  seen.again = await verdict();
  if (seen.again !== seen.verdict) seen.problems.push(`the link shows another verdict: ${seen.again}`);

  await page.goto(`${PAGE}/agents`, { waitUntil: "networkidle" });
  await look("coverage");
  await page.close();
}
await browser.close();
console.log(JSON.stringify(seen));
