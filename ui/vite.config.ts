// Builds the page into dist/, which the query service embeds. `npm run dev` serves it with the API
// of a running `flowtap serve`, or of the fixtures (`npm run fixtures`), behind it: UI_API says which.
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

export default defineConfig({
  plugins: [react()],
  // Fonts stay files: a page under `default-src 'self'` may not load data: URLs.
  build: { assetsInlineLimit: 0, target: "es2022", chunkSizeWarningLimit: 800 },
  server: {
    host: "127.0.0.1",
    port: 5199,
    strictPort: true,
    proxy: { "/api": { target: process.env.UI_API ?? "http://127.0.0.1:5198", changeOrigin: true } },
  },
  test: { include: ["src/**/*.test.ts"] },
});
