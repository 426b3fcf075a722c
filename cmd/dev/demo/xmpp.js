// The XMPP side: Prosody with a configuration of its own, and Xenia, whose
// client is slixmpp.

import { execFile } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { Actor } from "./actor.js";
import { Process, freePort, workDirectory } from "./process.js";

const run = promisify(execFile);
const domain = "xmpp.demo.test";
const password = "tulips in spring";

/**
 * Starts an XMPP server on free ports of the loopback interface.
 *
 * @returns {Promise<{port: number, domain: string, ca: string}>} ca is a PEM
 *   file with the certificate by which to know the server
 */
export async function startXMPPServer() {
    const folder = join(workDirectory(), "prosody");
    const [port, web] = [await freePort(), await freePort()];
    mkdirSync(join(folder, "data"), { recursive: true });
    const [ca, key] = [join(folder, "certificate.pem"), join(folder, "key.pem")];
    await run("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", `/CN=${domain}`, "-addext", `subjectAltName=DNS:${domain}`, "-keyout", key, "-out", ca]);
    const file = join(folder, "prosody.cfg.lua");
    writeFileSync(file, configuration(folder, port, web), { mode: 0o600 });
    const server = new Process("Prosody (Debian package prosody)", "prosody", ["--config", file, "-F"]);
    await server.prints(/Activated service 'c2s'/);
    return { port, domain, ca };
}

// The modules are those that a public server has.
function configuration(folder, port, web) {
    return `
pidfile = "${folder}/pid"
data_path = "${folder}/data"
run_as_root = true
daemonize = false
interfaces = { "127.0.0.1" }
c2s_ports = { ${port} }
s2s_ports = { }
http_ports = { ${web} }
http_interfaces = { "127.0.0.1" }
https_ports = { }
http_default_host = "upload.${domain}"
ssl = { key = "${folder}/key.pem"; certificate = "${folder}/certificate.pem" }
modules_enabled = { "roster"; "saslauth"; "tls"; "disco"; "carbons"; "pep"; "ping"; "mam"; "smacks"; "register"; "posix" }
modules_disabled = { "s2s" }
allow_registration = true
authentication = "internal_hashed"
log = { info = "*console" }
VirtualHost "${domain}"
Component "upload.${domain}" "http_file_share"
  http_external_url = "http://127.0.0.1:${web}/"
  http_file_share_access = { "${domain}" }
`;
}

/**
 * Makes an account on the server.
 *
 * @returns {Promise<{address: string, password: string}>}
 */
export async function createXMPPAccount(name) {
    const file = join(workDirectory(), "prosody", "prosody.cfg.lua");
    await run("prosodyctl", ["--config", file, "register", name, domain, password]);
    return { address: `${name}@${domain}`, password };
}

/**
 * Starts the client of Xenia, a friend of who has the address to.
 *
 * @returns {Promise<import("./talk.js").Friend>}
 */
export async function startXenia({ port, ca }, to) {
    const { address } = await createXMPPAccount("xenia");
    const script = fileURLToPath(new URL("xenia.py", import.meta.url));
    const python = process.env.DEMO_PYTHON || "python3";
    const xenia = new Actor("Xenia (slixmpp)", python, [script, address, password, `127.0.0.1:${port}`, ca, workDirectory()]);
    await xenia.tells("xenia is logged in", (told) => told.ready);
    return xenia.friend("xenia", "xmpp", { to });
}
