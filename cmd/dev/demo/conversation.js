// The conversation as the demo prints it: at the margin the protocol, then who
// said what where, and who really saw it.

const colour = process.stdout.isTTY && !process.env.NO_COLOR;
const paint = (code, text) => (colour ? `\x1b[${code}m${text}\x1b[0m` : text);
const margins = { matrix: 36, irc: 33, xmpp: 35, whatsapp: 32, demo: 90 };

/** Prints a headline. */
export function chapter(title) {
    print(`\n${paint(1, title)}`);
}

/** Prints what happens beside the talking. */
export function note(protocol, text) {
    print(`${margin(protocol)} ${paint(90, text)}`);
}

/** Prints what somebody says. */
export function said(protocol, who, where, text) {
    print(`${margin(protocol)} ${who} → ${where}: ${paint(1, text)}`);
}

/** Prints that somebody really saw what was said before. */
export function arrived(protocol, who, how) {
    print(`${margin(protocol)}   ${paint(32, "✓")} ${who} ${how}`);
}

function print(line) {
    process.stdout.write(`${line}\n`);
}

function margin(protocol) {
    return `${paint(margins[protocol], protocol.padStart(8))} ${paint(90, "│")}`;
}
