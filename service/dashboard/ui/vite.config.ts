import { defineConfig } from "vite";

/** Built into what the service serves; `npm run dev` serves the sources instead, and asks a service on port 8000. */
export default defineConfig({
  build: {
    outDir: "../static",
    emptyOutDir: true,
    target: "es2022",
    cssTarget: ["chrome123", "firefox120", "safari17.5"], // those that know light-dark()
    assetsInlineLimit: 0, // the page's policy allows no data: addresses
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  server: { proxy: { "/v1": "http://127.0.0.1:8000", "/healthz": "http://127.0.0.1:8000", "/openapi.json": "http://127.0.0.1:8000" } },
});
