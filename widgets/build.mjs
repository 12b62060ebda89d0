// Builds the widgets into the Python package; with --check it compares instead of writing.
import { readFile, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const target = join(here, "../datastore_lab/notebook/static");
const check = process.argv.includes("--check");

const { outputFiles } = await build({
  absWorkingDir: here,
  entryPoints: ["src/tree.ts", "src/live.ts", "src/tree.css", "src/live.css"],
  outdir: target,
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  charset: "utf8",
  legalComments: "none",
  write: false,
});

let stale = 0;
for (const { path, text } of outputFiles) {
  const size = `${(Buffer.byteLength(text) / 1000).toFixed(1)} kB`;
  if (!check) {
    await writeFile(path, text);
    console.log(`${basename(path)} ${size}`);
    continue;
  }
  const committed = await readFile(path, "utf8").catch(() => "");
  if (committed !== text) {
    stale += 1;
    console.error(`${basename(path)} is not the build of widgets/src: run "npm run build" and commit it`);
  }
}
if (check && !stale) console.log(`${outputFiles.length} files are the build of the sources`);
process.exitCode = stale ? 1 : 0;
