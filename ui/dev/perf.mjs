// Measures a flow of 10 000 records in the browser: time until it can be used, and frames while zooming and
// scrolling. Wants `PARTS=1900 npm run fixtures -- --dist` at UI_URL.
import { chromium } from "playwright-core";

const base = process.env.UI_URL ?? "http://127.0.0.1:5198";
const list = await (await fetch(`${base}/api/v1/flows?limit=200`)).json();
const large = list.flows.toSorted((a, b) => b.records - a.records)[0];
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox"],
});
const page = await browser.newPage({ viewport: { width: 1920, height: 1080 } });
await page.goto(base);
await page.waitForSelector("table.flows");
const started = Date.now();
await page.goto(`${base}/flows/${encodeURIComponent(large.flow)}`);
await page.waitForSelector(".row.active");
console.log(`${large.records} records: usable after ${Date.now() - started} ms`);

async function frames(name, act) {
  await page.evaluate(() => {
    globalThis.times = [];
    let before = performance.now();
    const tick = (now) => {
      globalThis.times.push(now - before);
      before = now;
      globalThis.handle = requestAnimationFrame(tick);
    };
    globalThis.handle = requestAnimationFrame(tick);
  });
  await act();
  const times = await page.evaluate(() => {
    cancelAnimationFrame(globalThis.handle);
    return globalThis.times.slice(1).sort((a, b) => a - b);
  });
  const at = (share) => times[Math.floor((times.length - 1) * share)].toFixed(1);
  console.log(`${name}: ${times.length} frames, p50 ${at(0.5)} ms, p95 ${at(0.95)} ms, worst ${at(1)} ms`);
}

const canvas = await page.locator(".lane-canvas canvas").boundingBox();
await page.mouse.move(canvas.x + canvas.width / 2, canvas.y + 100);
await page.keyboard.press("0");
await frames("zoom with Ctrl and wheel", async () => {
  await page.keyboard.down("Control");
  for (let i = 0; i < 40; i++) {
    await page.mouse.wheel(0, i < 20 ? -60 : 60);
    await page.waitForTimeout(16);
  }
  await page.keyboard.up("Control");
});
await frames("move over the whole picture", async () => {
  for (let i = 0; i < 60; i++)
    await page.mouse.move(canvas.x + (canvas.width * i) / 60, canvas.y + 60 + i * 2);
});
await page.locator(".row.fold .twist").first().click();
const grid = await page.locator(".records").boundingBox();
await page.mouse.move(grid.x + 300, grid.y + 120);
await frames("scroll the list, unfolded", async () => {
  for (let i = 0; i < 60; i++) {
    await page.mouse.wheel(0, 400);
    await page.waitForTimeout(16);
  }
});
await frames("J through 40 rows", async () => {
  for (let i = 0; i < 40; i++) await page.keyboard.press("j");
});
await browser.close();
