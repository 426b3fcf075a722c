// The server: the real binary over a new directory, with the few lines of
// configuration that the demo needs.

import { execFile } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { Process, freePort, workDirectory } from "./process.js";

const run = promisify(execFile);
const repository = fileURLToPath(new URL("../../..", import.meta.url));

/** A running Switchboard. */
export class Switchboard {
    /** URL of the client API. */
    url;

    /** The token that the server prints when it has no accounts yet. */
    firstToken;

    /** The nick of those who have no login to IRC. */
    guests = "guests";

    #binary;
    #config = join(workDirectory(), "switchboard.yaml");

    /**
     * Starts the server.
     *
     * @param {{ircPort: number}} options where the IRC server of the bridge's only network is
     */
    async start({ ircPort }) {
        this.#binary = process.env.SWITCHBOARD_BIN || (await build());
        const port = await freePort();
        this.url = `http://127.0.0.1:${port}`;
        writeFileSync(this.#config, configuration(port, ircPort, this.guests), { mode: 0o600 });
        const server = new Process("switchboard", this.#binary, ["serve", "--config", this.#config], { cwd: workDirectory() });
        [, this.firstToken] = await server.prints(/registration token\s+(\S+)/, 60);
    }

    /** Makes a registration token for one more account, as an administrator does. */
    async createToken() {
        const { stdout } = await run(this.#binary, ["token", "create", "--config", this.#config], { cwd: workDirectory() });
        return stdout.trim();
    }
}

async function build() {
    const binary = join(workDirectory(), "switchboard");
    await run("go", ["build", "-tags", "goolm", "-o", binary, "./cmd/switchboard"], {
        cwd: repository,
        env: { ...process.env, CGO_ENABLED: "0" },
    });
    return binary;
}

// One network for the bridge, and a port of its own; the rest is as it is
// without a file.
function configuration(port, ircPort, guests) {
    return `
listeners:
  - address: 127.0.0.1:${port}
registration:
  mode: token
bridges:
  irc:
    enabled: true
    networks:
      - id: demo
        address: 127.0.0.1:${ircPort}
        tls: "off"
        relay:
          nick: ${guests}
`;
}
