// Somebody on another network: a program of its own that reads what to say and
// writes what it sees, as lines of JSON.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { Seen } from "./expect.js";
import { Process, workDirectory } from "./process.js";

/** A running program that plays somebody. */
export class Actor {
    #process;
    #seen = new Seen();

    /** Takes what {@link Process} takes. */
    constructor(name, program, args, options = {}) {
        this.#process = new Process(name, program, args, { ...options, orders: true });
        createInterface({ input: this.#process.stdout }).on("line", (line) => this.#seen.add(JSON.parse(line)));
    }

    /** Gives an order. */
    do(order) {
        this.#process.stdin.write(`${JSON.stringify(order)}\n`);
    }

    /**
     * Waits for something that the program tells.
     *
     * @param {string} what for the message when it does not come
     * @param {(told: object) => boolean} matches
     * @returns {Promise<object>}
     */
    tells(what, matches) {
        return Promise.race([this.#seen.find(what, matches), this.#process.fails()]);
    }

    /**
     * The actor as a friend of Alice's.
     *
     * @param {string} name
     * @param {string} network
     * @param {object} more what each order says besides the text or the picture
     * @returns {import("./talk.js").Friend}
     */
    friend(name, network, more = {}) {
        return {
            name,
            network,
            say: (text) => this.do({ text, ...more }),
            show: async (bytes) => {
                const picture = join(workDirectory(), `${name}.png`);
                writeFileSync(picture, bytes);
                this.do({ picture, ...more });
            },
            sees: async (text) => `from ${(await this.tells(`${name} sees "${text}"`, (told) => told.text === text)).from}`,
            opens: async () => {
                const { picture, from } = await this.tells(`${name} sees a picture`, (told) => told.picture);
                return { bytes: readFileSync(picture), how: `opens the picture from ${from}` };
            },
        };
    }
}
