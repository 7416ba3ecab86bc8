import { defineConfig } from "vite";

// web/static is committed, so that running Plait needs no Node; `scripts/web --check` proves that
// it is what these sources give.
export default defineConfig({
  root: "src",
  base: "/static/",
  publicDir: "public",
  build: {
    outDir: process.env.PLAIT_WEB_OUT ?? "../static",
    emptyOutDir: true,
    assetsDir: "",
    assetsInlineLimit: 0,
    target: "es2022",
    // Its polyfill would be the only inline script; the page has one chunk and nothing to preload.
    modulePreload: false,
    license: { fileName: "licenses.txt" },
  },
  server: {
    proxy: {
      "/api": "http://127.0.0.1:8000",
      "/ws": { target: "ws://127.0.0.1:8000", ws: true },
    },
  },
});
