// One trial: a connection to the server on one way, and what it carries.

const gatherFor = 9000, connectFor = 15000, listenFor = 5000, pings = 25; // ms; how many
const relays = ["udp", "tcp", "tls"];

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const familyOf = (address) => (/^[0-9.]+$/.test(address) ? 4 : address.includes(":") ? 6 : 0); // 0: the browser hides it

// post asks the server and gives its answer, or throws what it says.
export async function post(path, body, token) {
  const headers = { "Content-Type": "application/json" };
  if (token) headers.Authorization = "Bearer " + token;
  let answer;
  try {
    answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), cache: "no-store" });
  } catch {
    throw new Error("The server cannot be reached.");
  }
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(said.error || `The server answered ${answer.status}.`), { code: said.errcode });
  return said;
}

// candidateOf reads a line "a=candidate:…" of an SDP.
function candidateOf(line) {
  const [, , , , address, , , type, ...rest] = line.trim().split(" ");
  const related = rest.indexOf("raddr");
  return { address, type, related: related < 0 ? "" : rest[related + 1] };
}

const isCandidate = (line) => line.startsWith("a=candidate:");

// keep drops the candidates of an SDP that do not pass.
function keep(sdp, passes) {
  return sdp.split("\r\n").filter((line) => !isCandidate(line) || passes(candidateOf(line))).join("\r\n");
}

function candidatesOf(sdp) {
  return sdp.split("\r\n").filter(isCandidate).map(candidateOf);
}

// gather makes the offer and waits for the addresses of the browser.
async function gather(pc, wanted) {
  let code = 0;
  pc.onicecandidateerror = (e) => { code = code || e.errorCode; };
  await pc.setLocalDescription(await pc.createOffer());
  await new Promise((done) => {
    const timer = setTimeout(done, gatherFor);
    pc.onicegatheringstatechange = () => { if (pc.iceGatheringState === "complete") { clearTimeout(timer); done(); } };
    pc.onicecandidate = (e) => { // others, of interfaces that lead nowhere, may take long
      if (e.candidate && e.candidate.candidate && wanted(candidateOf(e.candidate.candidate))) setTimeout(done, 1500);
    };
  });
  return code;
}

// connected waits for the connection and tells whether it came about.
function connected(pc) {
  return new Promise((done) => {
    const look = () => {
      if (pc.connectionState === "connected") done(true);
      if (pc.connectionState === "failed" || pc.connectionState === "closed") done(false);
    };
    pc.onconnectionstatechange = look;
    setTimeout(() => done(false), connectFor);
    look();
  });
}

// ping measures the way there and back, in ms; null if nothing came back.
async function ping(data) {
  const times = [];
  data.onmessage = (e) => times.push(performance.now() - Number(e.data));
  for (let i = 0; i < pings; i++) {
    if (data.readyState === "open") data.send(String(performance.now()));
    await pause(listenFor / pings);
  }
  times.sort((a, b) => a - b);
  return times.length ? times[times.length >> 1] : null;
}

// report reads what the browser counted.
async function report(pc) {
  const found = {};
  const all = await pc.getStats();
  all.forEach((s) => {
    if (s.type === "inbound-rtp" && s.kind === "audio") found.back = s;
    if (s.type === "outbound-rtp" && s.kind === "audio") found.out = s;
    if (s.type === "transport" && s.selectedCandidatePairId) found.pair = all.get(s.selectedCandidatePairId);
    if (s.type === "candidate-pair" && s.selected) found.pair = s; // Firefox
  });
  if (found.pair) found.local = all.get(found.pair.localCandidateId);
  return found;
}

const share = (lost, all) => (all > 0 ? Math.min(100, Math.max(0, 100 * lost / all)) : 0);

// runTrial tries one way. allowed is what the server gave for the session, and
// sound what tone made. It never throws: what went wrong is in the result.
export async function runTrial(trial, allowed, sound) {
  const result = { id: trial.id, kind: trial.kind, family: trial.family, port: trial.port, state: "failed" };
  if (trial.kind === "account") return { ...result, state: "absent" };
  const relayed = relays.includes(trial.kind);
  const servers = trial.urls.length ? [{ urls: trial.urls, username: allowed.username, credential: allowed.password }] : [];
  let pc;
  try {
    pc = new RTCPeerConnection({ iceServers: servers, iceTransportPolicy: relayed ? "relay" : "all", bundlePolicy: "max-bundle" });
  } catch {
    return { ...result, why: "browser" };
  }
  try {
    return Object.assign(result, await attempt(pc, trial, allowed, sound, relayed));
  } catch (e) {
    return { ...result, why: "server", error: String(e.message || e) };
  } finally {
    pc.close();
  }
}

async function attempt(pc, trial, allowed, sound, relayed) {
  const data = pc.createDataChannel("test", { ordered: false, maxRetransmits: 0 });
  const opened = new Promise((done) => { data.onopen = done; });
  for (const track of sound.stream.getAudioTracks()) pc.addTrack(track, sound.stream);

  const wantedType = relayed ? "relay" : trial.kind;
  const ofFamily = (c) => !trial.family || familyOf(c.address) === trial.family || familyOf(c.address) === 0;
  const wanted = (c) => c.type === wantedType && (relayed || ofFamily(c));
  const code = await gather(pc, wanted);
  const mine = candidatesOf(pc.localDescription.sdp);
  let same = false, passes = wanted;
  if (!mine.some(wanted)) {
    if (trial.kind === "srflx" && !code && mine.some((c) => c.type === "host" && ofFamily(c)) && trial.family !== 6) {
      same = true; // the address is public, so that STUN finds nothing new
      passes = (c) => c.type === "host" && ofFamily(c);
    } else if (!code) {
      return trial.family === 6 || trial.kind === "srflx" ? { state: "absent" } : { why: "silent" };
    } else {
      return { why: code >= 400 && code < 600 ? "refused" : "silent" };
    }
  }
  const answer = await post("/calltest/open", { session: allowed.session, sdp: keep(pc.localDescription.sdp, passes) });
  const ear = sound.ear();
  pc.ontrack = (e) => ear.listen(e.streams[0] || new MediaStream([e.track]));
  let result;
  try {
    const theirs = relayed ? answer.sdp : keep(answer.sdp, ofFamily);
    if (!relayed && candidatesOf(theirs).length === 0) return { why: "silent" };
    await pc.setRemoteDescription({ type: "answer", sdp: theirs });
    result = (await connected(pc)) ? await measure(pc, data, opened, ear) : { why: relayed || trial.kind === "srflx" ? "blocked" : "silent" };
  } finally {
    ear.end();
    const saw = await post("/calltest/close", { session: allowed.session, peer: answer.peer }).catch(() => null);
    if (result && result.state === "ok" && saw) result.up = share(saw.lost, saw.lost + saw.received);
  }
  if (!trial.family && result.related !== undefined) result.family = familyOf(result.related) || undefined;
  if (!result.family && relayed && !trial.family) {
    const families = new Set(mine.filter(wanted).map((c) => familyOf(c.related)));
    if (families.size === 1 && !families.has(0)) result.family = [...families][0];
  }
  delete result.related;
  return { ...result, same: same || undefined };
}

// measure sends and listens for five seconds.
async function measure(pc, data, opened, ear) {
  await Promise.race([opened, pause(5000)]);
  const delay = await ping(data);
  const { back, local } = await report(pc);
  if (delay === null && !back) return { why: "broke" };
  const received = back ? back.packetsReceived : 0;
  return {
    state: "ok", delay: delay === null ? undefined : Math.round(delay * 10) / 10,
    down: share(back ? back.packetsLost : 0, received + (back ? back.packetsLost : 0)),
    sound: received > 50 && ear.heard(),
    related: local && local.relatedAddress,
  };
}

// tone is a soft tone to send, and ears to hear whether it comes back.
export function tone() {
  const context = new AudioContext();
  const source = context.createOscillator(), volume = context.createGain(), out = context.createMediaStreamDestination();
  source.frequency.value = 440;
  volume.gain.value = 0.2;
  source.connect(volume).connect(out);
  source.start();
  context.resume();
  return { stream: out.stream, ear: () => ear(context), end: () => context.close() };
}

// ear listens to a stream without playing it.
function ear(context) {
  const analyser = context.createAnalyser(), samples = new Float32Array(analyser.fftSize);
  const player = new Audio(); // Chromium decodes only what is played
  player.muted = true;
  let loudest = 0, source;
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    loudest = Math.max(loudest, ...samples);
  }, 100);
  return {
    listen(stream) {
      player.srcObject = stream;
      player.play().catch(() => {});
      source = context.createMediaStreamSource(stream);
      source.connect(analyser);
    },
    heard: () => loudest > 0.01 || context.state !== "running",
    end() {
      clearInterval(timer);
      player.srcObject = null;
      if (source) source.disconnect();
    },
  };
}

// hear lets the user hear the own voice on the best way there is. It gives what
// ends it; over is called when it ends by itself.
export async function hear(allowed, over) {
  const voice = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false } });
  const urls = allowed.trials.flatMap((t) => t.urls);
  const pc = new RTCPeerConnection({ iceServers: urls.length ? [{ urls, username: allowed.username, credential: allowed.password }] : [] });
  const speaker = new Audio();
  let peer, ended = false;
  const end = () => {
    if (ended) return;
    ended = true;
    voice.getTracks().forEach((t) => t.stop());
    speaker.srcObject = null;
    pc.close();
    if (peer) post("/calltest/close", { session: allowed.session, peer }).catch(() => {});
    over();
  };
  try {
    voice.getTracks().forEach((t) => pc.addTrack(t, voice));
    pc.ontrack = (e) => { speaker.srcObject = e.streams[0] || new MediaStream([e.track]); speaker.play().catch(() => {}); };
    await gather(pc, (c) => c.type === "relay");
    const answer = await post("/calltest/open", { session: allowed.session, sdp: pc.localDescription.sdp, delay: 1000 });
    peer = answer.peer;
    await pc.setRemoteDescription({ type: "answer", sdp: answer.sdp });
    if (!(await connected(pc))) throw new Error("No connection came about.");
    pc.onconnectionstatechange = () => { if (pc.connectionState !== "connected") end(); };
    setTimeout(end, 55000);
  } catch (e) {
    end();
    throw e;
  }
  return end;
}
