// Builds the application into a directory: the code of Element Web as it is on
// npm, with the shell of app.js around it.

import { cp, mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";

import { build } from "esbuild";
import postcss from "postcss";
import easings from "postcss-easings";
import hexrgba from "postcss-hexrgba";
import imports from "postcss-import";
import mixins from "postcss-mixins";
import nested from "postcss-nested";
import scss from "postcss-scss";
import variables from "postcss-simple-vars";

const [directory] = process.argv.slice(2);
const sdk = resolve("node_modules/matrix-react-sdk");
const drawings = /\.svg$/;

// What Element's sources expect of webpack and its loaders.
const webpack = {
    name: "webpack",
    setup(builder) {
        const module = (filter, namespace, path, load) => {
            builder.onResolve({ filter }, (args) => (args.kind === "url-token" ? undefined : { path: path(args), namespace }));
            builder.onLoad({ filter: /.*/, namespace }, load);
        };
        module(/^\$webapp\/i18n\/languages\.json$/, "languages", ({ path }) => path, () => ({ contents: `export default "i18n/languages.json"` }));
        module(/^(fs|path|util)$/, "node", ({ path }) => path, () => ({
            contents: "export const isArray = Array.isArray, isDate = (value) => value instanceof Date",
        }));
        // Voice messages need these; nobody records one.
        module(/RecorderWorklet$|^opus-recorder\//, "recorder", ({ path }) => path, () => ({ contents: `export default "";` }));
        module(/^!!raw-loader!/, "raw", ({ path, resolveDir }) => resolve(resolveDir, path.replace(/^.*!/, "")), async ({ path }) => ({
            contents: await readFile(path.endsWith(".css") ? path : `${path}.js`),
            loader: "text",
        }));
        builder.onLoad({ filter: drawings }, async ({ path, suffix }) => {
            if (suffix === "?url") return { contents: await readFile(path), loader: "file" };
            return {
                contents: `
                    import React from "react";
                    import url from ${JSON.stringify(`${path}?url`)};
                    export default url;
                    export const Icon = (props) => React.createElement("img", { src: url, alt: "", ...props });`,
                resolveDir: sdk,
            };
        });
        builder.onResolve({ filter: drawings }, async ({ path, kind, ...args }) => {
            if (kind !== "url-token") return undefined;
            const found = await builder.resolve(`${path}?css`, { ...args, kind: "import-statement" });
            return { ...found, suffix: "?url" };
        });
        builder.onLoad({ filter: /WorkerFactory\.ts$/ }, async ({ path }) => ({
            contents: (await readFile(path, "utf8")).replace(".worker.ts", ".worker.js"),
            loader: "ts",
        }));
    },
};

const options = {
    bundle: true,
    minify: true,
    outdir: directory,
    logLevel: "warning",
    inject: ["node.js"],
    define: { global: "globalThis", "process.env.NODE_ENV": `"production"`, "process.env.VERSION": `"0"` },
    loader: Object.fromEntries(["gif", "png", "wasm", "woff", "woff2", "ttf"].map((ending) => [`.${ending}`, "file"])),
    plugins: [webpack],
};

async function buildTheme(name) {
    const source = join(sdk, `res/themes/${name}/css/${name}.pcss`);
    const { css } = await postcss([imports(), mixins(), variables(), nested(), easings(), hexrgba()])
        .process(await readFile(source, "utf8"), { from: source, parser: scss });
    await build({
        ...options,
        stdin: { contents: css, loader: "css", resolveDir: join(source, "..") },
        outdir: undefined,
        outfile: join(directory, `${name}.css`),
    });
}

await mkdir(join(directory, "i18n"), { recursive: true });
await build({ ...options, entryPoints: ["app.js"], format: "esm" });
const workers = join(sdk, "src/workers");
await build({
    ...options,
    entryPoints: (await readdir(workers)).filter((file) => file.endsWith(".worker.ts")).map((file) => join(workers, file)),
    format: "iife",
});
await buildTheme("light");
await writeFile(join(directory, "i18n/languages.json"), `{"en": "en_EN.json"}`);
await cp(join(sdk, "src/i18n/strings/en_EN.json"), join(directory, "i18n/en_EN.json"));
for (const file of ["index.html", "find.js", "media.js"]) await cp(file, join(directory, file));
