// Processes and files that the demo makes, and their end: everything is
// stopped by its process ID and removed, however the demo ends.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { within } from "./expect.js";

const running = new Set();
let directory;

/** Returns the demo's own directory, which cleanUp removes. */
export function workDirectory() {
    directory ??= mkdtempSync(join(tmpdir(), "switchboard-demo-"));
    return directory;
}

/** A program that runs until it is stopped. */
export class Process {
    /** Everything that the program has printed, newest last. */
    output = "";

    #child;
    #ended;
    #listeners = new Set();

    /**
     * @param {string} name for messages
     * @param {string} program
     * @param {string[]} args
     * @param {import("node:child_process").SpawnOptions & {orders?: boolean}} options
     *   orders gives the program a standard input, whose end ends it
     */
    constructor(name, program, args, { orders, ...options } = {}) {
        this.name = name;
        this.#child = spawn(program, args, { ...options, stdio: [orders ? "pipe" : "ignore", "pipe", "pipe"] });
        this.#ended = new Promise((resolve) => {
            this.#child.once("error", (err) => resolve(`did not start: ${err.message}`));
            this.#child.once("close", (code, signal) => resolve(`ended with ${signal ?? `status ${code}`}`));
        });
        for (const stream of [this.#child.stdout, this.#child.stderr]) {
            stream.setEncoding("utf8").on("data", (text) => {
                this.output += text;
                this.#listeners.forEach((listener) => listener());
            });
        }
        running.add(this);
        this.#ended.then(() => running.delete(this));
    }

    get stdin() {
        return this.#child.stdin;
    }

    get stdout() {
        return this.#child.stdout;
    }

    /**
     * Waits until the program has printed what pattern matches.
     *
     * @param {RegExp} pattern
     * @returns {Promise<RegExpMatchArray>}
     */
    async prints(pattern) {
        let listener;
        const matched = new Promise((resolve) => {
            listener = () => {
                const match = this.output.match(pattern);
                if (match) resolve(match);
            };
            this.#listeners.add(listener);
            listener();
        });
        try {
            return await within(`${this.name} prints ${pattern}`, Promise.race([matched, this.fails()]));
        } finally {
            this.#listeners.delete(listener);
        }
    }

    /** Throws when the program ends. */
    async fails() {
        const how = await this.#ended;
        throw new Error(`${this.name} ${how}. Its output was:\n${this.output.trimEnd() || "(nothing)"}`);
    }

    /** Asks the program to end, and makes it end if it does not within 10 seconds. */
    async stop() {
        if (!running.has(this)) return;
        this.#child.stdin?.end();
        this.#child.kill("SIGTERM");
        const timer = setTimeout(() => this.#child.kill("SIGKILL"), 10_000);
        await this.#ended;
        clearTimeout(timer);
    }

    /** Makes the program end at once. */
    kill() {
        this.#child.kill("SIGKILL");
    }
}

/**
 * Returns what the running programs have said last, for who looks for a fault.
 *
 * @returns {string}
 */
export function lastWords() {
    return [...running]
        .map(({ name, output }) => `The last lines of ${name}:\n${output.trimEnd().split("\n").slice(-30).join("\n")}\n`)
        .join("\n");
}

/**
 * Returns a port of the loopback interface where nobody listens now. Until
 * somebody does, no connection gets it by chance: those have ports above 32767.
 *
 * @returns {Promise<number>}
 */
export function freePort() {
    return new Promise((resolve) => {
        const port = 10_000 + Math.floor(Math.random() * 22_000);
        const server = createServer().once("error", () => resolve(freePort()));
        server.listen(port, "127.0.0.1", () => server.close(() => resolve(port)));
    });
}

/** Stops what still runs and removes the demo's files. */
export async function cleanUp() {
    await Promise.all([...running].map((process) => process.stop()));
    if (directory) rmSync(directory, { recursive: true, force: true, maxRetries: 10 });
    directory = undefined;
}

// Ctrl-C, a closed terminal and the like must not leave processes behind.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
    process.once(signal, () => {
        running.forEach((process) => process.kill());
        if (directory) rmSync(directory, { recursive: true, force: true });
        process.exit(130);
    });
}
