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
     * Starts the server with all its bridges.
     *
     * @param {object} networks
     * @param {{port: number}} networks.irc where the only IRC network is
     * @param {{port: number, domain: string, ca: string}} networks.xmpp
     * @param {{server: string}} networks.whatsapp
     */
    async start(networks) {
        this.#binary = process.env.SWITCHBOARD_BIN || (await build("switchboard", "./cmd/switchboard"));
        const port = await freePort();
        this.url = `http://127.0.0.1:${port}`;
        writeFileSync(this.#config, configuration(port, networks, this.guests), { mode: 0o600 });
        const server = new Process("switchboard", this.#binary, ["serve", "--config", this.#config], { cwd: workDirectory() });
        [, this.firstToken] = await server.prints(/registration token\s+(\S+)/);
    }

    /** Makes a registration token for one more account, as an administrator does. */
    async createToken() {
        const { stdout } = await run(this.#binary, ["token", "create", "--config", this.#config], { cwd: workDirectory() });
        return stdout.trim();
    }
}

/**
 * Builds a program of this source.
 *
 * @returns {Promise<string>} where it is
 */
export async function build(name, source) {
    const binary = join(workDirectory(), name);
    await run("go", ["build", "-trimpath", "-tags", "goolm", "-o", binary, source], {
        cwd: repository,
        env: { ...process.env, CGO_ENABLED: "0" },
    });
    return binary;
}

// The networks, a port of its own, and that the files of the XMPP server are on
// this computer; the rest is as it is without a file.
function configuration(port, { irc, xmpp, whatsapp }, guests) {
    return `
public_url: http://127.0.0.1:${port}
listeners:
  - address: 127.0.0.1:${port}
registration:
  mode: token
outbound:
  allow: [127.0.0.0/8]
bridges:
  irc:
    enabled: true
    networks:
      - id: demo
        address: 127.0.0.1:${irc.port}
        tls: "off"
        relay:
          nick: ${guests}
  xmpp:
    enabled: true
    servers:
      - domain: ${xmpp.domain}
        address: 127.0.0.1:${xmpp.port}
        ca_file: ${xmpp.ca}
  whatsapp:
    enabled: true
    test_server: ${whatsapp.server}
`;
}
