// Import this module first. It silences what matrix-js-sdk and its Rust part
// write to the console, which would bury the conversation; DEMO_DEBUG=1 shows
// it.

if (!process.env.DEMO_DEBUG) {
    for (const level of ["trace", "debug", "info", "log", "warn", "error"]) console[level] = () => {};
}
