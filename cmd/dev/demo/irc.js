// The IRC side: InspIRCd with a configuration of its own, and a plain IRC
// client that knows nothing of Matrix.

import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { connect } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { Process, freePort, workDirectory } from "./process.js";
import { Seen, within } from "./expect.js";

/**
 * Starts an IRC server on a free port of the loopback interface.
 *
 * @returns {Promise<{port: number}>}
 */
export async function startIRCServer() {
    const port = await freePort();
    const file = join(workDirectory(), "inspircd.conf");
    writeFileSync(file, configuration(port), { mode: 0o600 });
    const args = ["--config", file, "--nofork", "--nopid", "--nolog"];
    if (process.getuid?.() === 0) args.push("--runasroot");
    const server = new Process("InspIRCd (Debian package inspircd)", "inspircd", args, {
        env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` },
    });
    await server.prints(/is now running/);
    return { port };
}

// The IRCv3 modules are those that a public network has; the limits are off
// because everybody comes from one address.
function configuration(port) {
    const modules = ["cap", "ircv3", "ircv3_servertime", "ircv3_msgid", "ircv3_ctctags", "ircv3_echomessage",
        "ircv3_labeledresponse", "ircv3_batch"];
    return `
<server name="irc.demo.test" description="Switchboard demo" network="Demo" id="0SB">
<admin name="demo" nick="demo" email="demo@demo.test">
<bind address="127.0.0.1" port="${port}" type="clients">
<connect allow="127.0.0.0/8" resolvehostnames="no" useident="no" localmax="100" globalmax="100"
  timeout="60" pingfreq="60" threshold="1000" commandrate="100000" fakelag="no" maxchans="50">
<dns server="127.0.0.1" timeout="1">
<options defaultmodes="nt">
<security hideserver="">
${modules.map((name) => `<module name="${name}">`).join("\n")}
`;
}

/** An IRC client that keeps every line it was sent. */
export class IRCClient {
    /** @type {Seen<{source: string, command: string, params: string[]}>} */
    #seen = new Seen();

    #socket;
    #web; // where she shows her pictures

    constructor(nick) {
        this.nick = nick;
    }

    /** Connects and returns once the server has welcomed the client. */
    async connect(port) {
        this.#socket = connect(port, "127.0.0.1");
        await within(`${this.nick} connects to the IRC server`, once(this.#socket, "connect"));
        createInterface({ input: this.#socket }).on("line", (line) => this.#receive(line));
        this.#write(`NICK ${this.nick}`);
        this.#write(`USER ${this.nick} 0 * :${this.nick}`);
        await this.line(`${this.nick} is welcomed by the IRC server`, (l) => l.command === "001");
    }

    async join(channel) {
        this.#write(`JOIN ${channel}`);
        await this.line(`${this.nick} is in ${channel}`, (l) => l.command === "JOIN" && l.source === this.nick);
    }

    say(target, text) {
        this.#write(`PRIVMSG ${target} :${text}`);
    }

    /**
     * Shows a picture as one does on IRC: on the web, by its address.
     *
     * @returns {Promise<string>} the address
     */
    async show(bytes) {
        this.#web = createServer((_, answer) => answer.setHeader("Content-Type", "image/png").end(bytes));
        this.#web.listen(0, "127.0.0.1");
        await once(this.#web, "listening");
        return `http://127.0.0.1:${this.#web.address().port}/lake.png`;
    }

    quit() {
        this.#socket?.end("QUIT\r\n");
        this.#web?.close();
    }

    /**
     * Waits for a line, seen or still to come.
     *
     * @param {string} what for the message when it does not come
     * @param {(line: {source: string, command: string, params: string[]}) => boolean} matches
     */
    line(what, matches) {
        return this.#seen.find(what, matches);
    }

    #receive(text) {
        const line = parse(text);
        if (line.command === "PING") this.#write(`PONG :${line.params.at(-1)}`);
        this.#seen.add(line);
    }

    #write(line) {
        this.#socket.write(`${line}\r\n`);
    }
}

// parse takes a line of the protocol apart; of the source only the nick is kept.
function parse(text) {
    const [, source = "", command, rest = ""] = text.match(/^(?:@\S+ +)?(?::([^ !@]+)\S* +)?(\S+)(.*)$/) ?? [];
    const [, middle, last] = rest.match(/^(.*?)(?: :(.*))?$/);
    const params = middle.split(" ").filter(Boolean);
    if (last !== undefined) params.push(last);
    return { source, command, params };
}
