// Prints a digest of what the page is built of and one of what was built, for
// the test that compares them with what is committed.
import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";

const files = (folder) =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => `${entry.parentPath}/${entry.name}`);

export function digest(paths) {
  const hash = createHash("sha256");
  for (const path of paths.sort()) hash.update(`${path}\0`).update(readFileSync(path)).update("\0");
  return hash.digest("hex");
}

const own = ["index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts"];
console.log(`${digest([...own, ...files("src")])}  sources`);
console.log(`${digest(["index.html", "chat.css", "chat.js"].map((name) => `dist/${name}`))}  dist`);
