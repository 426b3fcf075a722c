// The page itself: who may test, what is shown, and the link to share.

import { hear, post, runTrial, tone } from "./test.js";
import { percent, resultOf, verdict, wayOf } from "./verdict.js";

const atOnce = 3; // trials
const $ = (id) => document.getElementById(id);
let allowed = null; // what the server gave for this session

const show = (id, on = true) => { $(id).hidden = !on; };

function say(text) {
  $("message").textContent = text ? text[0].toUpperCase() + text.slice(1) : "";
  show("message", Boolean(text));
}

// admitted keeps what the server allows and offers the start.
async function admit(body, token) {
  allowed = await post("/calltest/session", body, token);
  show("login", false);
  show("ready");
}

// withForm runs work for a form, which cannot be sent again meanwhile.
function withForm(id, work) {
  $(id).addEventListener("submit", async (e) => {
    e.preventDefault();
    const form = e.target, button = form.querySelector("button");
    button.disabled = true;
    say("");
    try {
      await work(new FormData(form));
      form.reset();
    } catch (error) {
      say(error.message);
    }
    button.disabled = false;
  });
}

withForm("password-form", async (form) => {
  const login = await post("/_matrix/client/v3/login", {
    type: "m.login.password", identifier: { type: "m.id.user", user: form.get("user").trim() },
    password: form.get("password"), initial_device_display_name: "Call test",
  });
  try {
    await admit({}, login.access_token);
  } finally {
    await post("/_matrix/client/v3/logout", {}, login.access_token).catch(() => {});
  }
});

withForm("token-form", (form) => admit({}, form.get("token").trim()));

// cells fills a row of the table.
function fill(row, r) {
  const [way, how] = wayOf(r), [result, why] = resultOf(r);
  const cell = (text, small, name) => {
    const td = document.createElement("td");
    td.textContent = text;
    if (name) td.className = name;
    if (small) td.append(Object.assign(document.createElement("small"), { textContent: small }));
    return td;
  };
  const ok = r.state === "ok";
  const loss = ok ? `${percent(r.up || 0)} · ${percent(r.down || 0)}` : "";
  row.dataset.id = r.id;
  row.dataset.state = r.state;
  row.replaceChildren(cell(way, how), cell(result, why, r.state), cell(ok && r.delay !== undefined ? `${r.delay < 10 ? r.delay.toFixed(1) : Math.round(r.delay)} ms` : ""), cell(loss));
}

function table(results) {
  const body = document.querySelector("#results tbody");
  const rows = results.map((r) => {
    const row = document.createElement("tr");
    fill(row, r);
    return row;
  });
  body.replaceChildren(...rows);
  show("results");
  return rows;
}

function judge(results, ports, when) {
  const v = verdict(results, ports), box = $("verdict");
  box.className = "card " + v.level;
  box.querySelector("h2").textContent = v.title;
  $("when").textContent = when || "";
  show("when", Boolean(when));
  $("words").textContent = v.words;
  box.querySelector("ul").replaceChildren(...v.operator.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  show("operator", v.operator.length > 0);
  show("verdict");
}

// test runs all trials, some at once.
async function test() {
  say("");
  for (const id of ["ready", "verdict", "after"]) show(id, false);
  const results = allowed.trials.map((t) => ({ ...t, state: "waiting" }));
  const rows = table(results), sound = tone();
  let next = 0;
  const work = async () => {
    while (next < results.length) {
      const i = next++;
      fill(rows[i], { ...results[i], state: "running" });
      results[i] = await runTrial(allowed.trials[i], allowed, sound);
      fill(rows[i], results[i]);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, work));
  sound.end();
  const refused = results.find((r) => r.why === "server");
  if (refused) say(refused.error);
  const ports = [allowed.first_port || 0, allowed.last_port || 0];
  judge(results, ports);
  $("link").value = linkTo(results, ports);
  show("after");
  show("share");
  show("yourself", Boolean(navigator.mediaDevices));
}

$("start").addEventListener("click", test);
$("again").addEventListener("click", test);

// What is shared of a trial: nothing that tells where the user is.
const shared = ["id", "kind", "family", "port", "state", "why", "delay", "up", "down", "sound", "same"];

function linkTo(results, ports) {
  const rows = results.map((r) => Object.fromEntries(shared.filter((k) => r[k] !== undefined).map((k) => [k, r[k]])));
  const text = JSON.stringify({ at: Date.now(), by: browser(), ports, rows });
  const bytes = new TextEncoder().encode(text);
  return `${location.origin}/calltest#result=` + btoa(String.fromCharCode(...bytes)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");
}

// browser is its kind and version, without all that it pretends to be.
function browser() {
  const found = /(Firefox|Edg|OPR|Chrome|Version)\/(\d+)/.exec(navigator.userAgent.replace(/Chrome(?=.*(Edg|OPR)\/)/, ""));
  const system = /Android|iPhone|iPad|Windows|Mac OS X|Linux/.exec(navigator.userAgent);
  const name = found ? { Edg: "Edge", OPR: "Opera", Version: "Safari" }[found[1]] || found[1] : "Browser";
  return [name, found && found[2], system && "on " + system[0]].filter(Boolean).join(" ");
}

// received reads a shared result, which anybody may have written.
function received(code) {
  const bytes = Uint8Array.from(atob(code.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
  const said = JSON.parse(new TextDecoder().decode(bytes));
  const text = (v) => (typeof v === "string" ? v.slice(0, 60) : undefined), number = (v) => (Number.isFinite(v) ? v : undefined);
  const rows = said.rows.slice(0, 40).map((r) => ({
    id: text(r.id), kind: text(r.kind), family: number(r.family), port: text(r.port), state: text(r.state), why: text(r.why),
    delay: number(r.delay), up: number(r.up), down: number(r.down), sound: r.sound === true, same: r.same === true,
  }));
  return { at: new Date(number(said.at)), by: text(said.by) || "a browser", ports: [number(said.ports[0]), number(said.ports[1])], rows };
}

$("copy").addEventListener("click", async () => {
  $("link").select();
  try {
    await navigator.clipboard.writeText($("link").value);
    $("copy").textContent = "Copied";
  } catch {
    $("copy").textContent = "Copy it from the field";
  }
});

let stop = null;
$("hear").addEventListener("click", async () => {
  if (stop) return stop();
  const status = (text) => { $("hearing").textContent = text; };
  $("hear").disabled = true;
  status("Connecting …");
  try {
    stop = await hear(allowed, () => { stop = null; $("hear").textContent = "Use the microphone"; status(""); });
    $("hear").textContent = "Stop";
    status("Speak now.");
  } catch (e) {
    status(e.name === "NotAllowedError" ? "The browser does not let this page use the microphone." : e.message);
  }
  $("hear").disabled = false;
});

async function begin() {
  $("server").textContent = location.host;
  const [what, code] = location.hash.slice(1).split("=", 2);
  if (what === "result") {
    try {
      const r = received(code);
      judge(r.rows, r.ports, `A result of ${r.at.toLocaleString()}, from ${r.by}, as it was shared`);
      table(r.rows);
    } catch {
      say("This link is not complete. Ask for it again.");
    }
    return;
  }
  if (!window.RTCPeerConnection) return say("This browser cannot make calls.");
  if (what !== "link") return show("login");
  history.replaceState(null, "", "/calltest"); // it is of no use a second time
  try {
    await admit({ link: code });
  } catch (e) {
    say(e.message);
    show("login");
  }
}

begin();
