// The build goes into the Python package, flat, under fixed names: `static/` of the server serves it.
import react from "@vitejs/plugin-react";
import { defineConfig, type Plugin } from "vite";

/** Libraries write addresses of their documentation into error texts; the page names no other host. */
function withoutForeignAddresses(): Plugin {
  return {
    name: "without-foreign-addresses",
    enforce: "post",
    generateBundle(_options, bundle) {
      for (const part of Object.values(bundle)) {
        if (part.type === "chunk") {
          part.code = part.code.replaceAll(/https?:\/\/(?!www\.w3\.org\/|\$\{)(?=[a-z0-9.-]+\.[a-z]{2,})/g, "");
        }
      }
    },
  };
}

export default defineConfig({
  base: "./",
  plugins: [react(), withoutForeignAddresses()],
  experimental: {
    // the page is at `/`, its parts at `/static/`, also below a path prefix
    renderBuiltUrl: (filename, { hostType }) => (hostType === "html" ? `./static/${filename}` : { relative: true }),
  },
  build: {
    outDir: "../src/tesela/serve/static",
    emptyOutDir: true,
    assetsDir: "",
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    cssTarget: ["chrome123", "firefox120", "safari17.5"],
    modulePreload: false,
    reportCompressedSize: false,
    license: { fileName: "licenses.md" },
    rollupOptions: {
      output: {
        entryFileNames: "app.js",
        chunkFileNames: "[name].js",
        assetFileNames: (asset) => (asset.names.some((name) => name.endsWith(".css")) ? "app.css" : "[name][extname]"),
      },
    },
  },
  server: { proxy: { "/v1": "http://127.0.0.1:8000", "/openapi.json": "http://127.0.0.1:8000" } },
});
