import { defineConfig } from "vite";

// Plain names: the files are embedded in the server one by one.
export default defineConfig({
  base: "/chat/",
  build: {
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
    rollupOptions: {
      output: { entryFileNames: "chat.js", assetFileNames: "chat.[ext]" },
    },
  },
});
