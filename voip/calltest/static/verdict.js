// What results mean, in words. Nothing here touches the page or the network.

const relays = ["udp", "tcp", "tls"];

// wayOf names a trial for people.
export function wayOf(r) {
  const family = r.family ? `IPv${r.family}` : "";
  const port = r.port ? `port ${r.port}` : "";
  const small = (...parts) => parts.filter(Boolean).join(", ");
  switch (r.kind) {
    case "host": return ["Straight to the server", small(family)];
    case "srflx": return ["Straight, by your public address", small("STUN", family, port)];
    case "udp": return ["Through the relay over UDP", small(family, port)];
    case "tcp": return ["Through the relay over TCP", small(family, port)];
    case "tls": return ["Through the relay, encrypted like a web page", small("TLS", family, port)];
    case "account": return ["Through the relay", "with an account"];
  }
  return ["Another way", ""];
}

// resultOf says in few words how a trial went, and why.
export function resultOf(r) {
  switch (r.state) {
    case "ok": return [r.sound ? "Works" : "Connects, but without sound", r.same ? "your address is public already" : ""];
    case "absent": return r.kind === "account" ? ["Not tested", "log in to test it"] : ["Not possible here", r.family === 6 ? "your network has no IPv6" : "your network does not have it"];
    case "running": return ["Testing", ""];
    case "waiting": return ["Waiting", ""];
  }
  return ["Does not work", reasons[r.why] || ""];
}

const reasons = {
  silent: "no answer",
  refused: "the relay refuses",
  blocked: "an address, but nothing comes through",
  broke: "the connection broke off",
  server: "the server refused the test",
  browser: "the browser cannot do it",
};

// verdict judges all results: level is good, fair or bad.
export function verdict(results, ports) {
  const list = (...kinds) => results.filter((r) => kinds.includes(r.kind));
  const works = (...kinds) => list(...kinds).some((r) => r.state === "ok");
  const direct = works("host", "srflx"), udp = works("udp"), relayed = works(...relays);
  const offered = list(...relays).length > 0;
  const operator = advice(results, ports);
  const told = (level, title, words) => ({ level, title, words, operator });
  if (!direct && !relayed) {
    return told("bad", "Calls do not work from here", "No way to the server carries sound. " + (offered || list("account").length > 0
      ? "If calls work elsewhere, on the mobile network for instance, it is the network you are in that blocks them."
      : "The server offers no relay, which would help in such a network."));
  }
  if (list("account").length > 0) {
    return told("fair", "Half of it works from here", "You reach the server directly. Its relay is elsewhere, and only those who log in can test it.");
  }
  if (!offered) {
    return told("fair", "Calls work only sometimes", "The server has no relay. Calls reach people whose network can be reached from yours, and fail with all others.");
  }
  if (!relayed) {
    return told("bad", "Only some calls work from here", "You reach the server directly, but not through its relay, which is needed wherever two people cannot reach each other.");
  }
  if (!udp) {
    return told("fair", "Calls work, but not as well as they could", "Sound goes through the relay only over " +
      (works("tcp") ? "TCP" : "TLS") + (direct ? "." : ", because the network you are in lets no UDP out.") + " When the line is busy, it comes late and stutters.");
  }
  const line = best(results);
  if (line.loss > 3 || line.delay > 400) {
    return told("fair", "Calls work, but the line is poor", (line.loss > 3 ? `${percent(line.loss)} of the sound is lost. ` : "") +
      (line.delay > 400 ? `Sound takes ${Math.round(line.delay)} ms to the server and back. ` : "") + "A better place for Wi-Fi, or a cable, often helps.");
  }
  const silent = results.some((r) => r.state === "ok" && !r.sound);
  if (silent) {
    return told("fair", "Connections work, but not all carry sound", "Some ways connect and then bring no sound back. The table shows which.");
  }
  return told("good", "Calls work from here", direct
    ? "Directly, and through the relay where two people cannot reach each other."
    : "Through the relay. The server cannot be reached directly, which calls do not need.");
}

// best are the delay and the loss of the best way that carries sound.
function best(results) {
  const lines = results.filter((r) => r.state === "ok" && r.sound).map((r) => ({ delay: r.delay || 0, loss: Math.max(r.up || 0, r.down || 0) }));
  return lines.sort((a, b) => a.loss - b.loss || a.delay - b.delay)[0] || { delay: 0, loss: 0 };
}

// advice says what the operator of the server can do about what failed.
function advice(results, ports) {
  const failed = results.filter((r) => r.state === "failed");
  const anyRelay = results.some((r) => relays.includes(r.kind) && r.state === "ok");
  const out = new Set();
  const range = ports && ports[0] ? (ports[0] === ports[1] ? `UDP port ${ports[0]}` : `the UDP ports ${ports[0]} to ${ports[1]}`) : "the UDP ports of the relay";
  for (const r of failed) {
    const protocol = { udp: "UDP", srflx: "UDP" }[r.kind] || "TCP", at = `${protocol} port ${r.port}${r.family ? " over IPv" + r.family : ""}`;
    if (r.why === "blocked" && relays.includes(r.kind)) {
      out.add(`The relay gives addresses, but nothing comes through them: open ${range} in the firewall and forward ${ports && ports[0] === ports[1] ? "it" : "them"} in the router, and see that the external address is right.`);
    } else if (r.why === "refused") {
      out.add(`The relay at ${at} refuses its own password: it is another server that answers there, or its secret is another one.`);
    } else if (r.kind === "tls" && r.why === "silent") {
      out.add(`TLS on port ${r.port} does not answer: the port must be open and forwarded, and the certificate valid for the name that clients are told.`);
    } else if (r.why === "silent" && r.port) {
      out.add(`Nothing answers at ${at}: open it in the firewall and forward it in the router${anyRelay ? "" : ", or the user's network blocks it"}.`);
    }
  }
  if (out.size) out.add("“switchboard doctor calls” on the server tells more.");
  return [...out];
}

// percent writes a share for people.
export function percent(p) {
  return p === 0 ? "0 %" : p < 1 ? "< 1 %" : `${Math.round(p)} %`;
}
