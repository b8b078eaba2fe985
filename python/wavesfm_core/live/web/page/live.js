// SPDX-License-Identifier: GPL-3.0-or-later
"use strict";

const ROWS = 600; // of the waterfall's memory
const LEFT = 64, TOP = 34; // of the axes, in CSS pixels
const SHOWN_DB = 55; // over the floor, from the darkest to the brightest colour
const ROW_BYTES = 48; // of the header of a row
const EVENTS_KEPT = 200;
const RECONNECT_MS = [500, 10000];
// viridis at eight places: even for colour-blind eyes
const COLOURS = [[13, 8, 40], [62, 35, 110], [52, 80, 138], [36, 121, 142], [31, 158, 137], [94, 201, 98], [190, 222, 60], [253, 240, 120]];

const $ = (id) => document.getElementById(id);
const state = {
  rows: [], // newest last: {start, count, rate, centre, time, line}
  line: 0, bins: 0, floor: null,
  emitters: new Map(), selected: null, hits: [],
  paused: false, status: null, token: sessionStorage.getItem("token") || "", wait: RECONNECT_MS[0],
  frames: 0, dirty: true,
};
const memory = document.createElement("canvas"); // one line a row, as a ring
const palette = makePalette();

function makePalette() {
  const bytes = new Uint8ClampedArray(256 * 3);
  for (let i = 0; i < 256; i++) {
    const at = i / 255 * (COLOURS.length - 1), low = Math.min(Math.floor(at), COLOURS.length - 2), share = at - low;
    for (let c = 0; c < 3; c++) bytes[3 * i + c] = COLOURS[low][c] * (1 - share) + COLOURS[low + 1][c] * share;
  }
  return bytes;
}

// ---- connection

function connect() {
  const url = new URL("api/live", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(url, state.token ? ["wavesfm", "bearer." + state.token] : ["wavesfm"]);
  let opened = false;
  socket.binaryType = "arraybuffer";
  socket.onopen = () => { opened = true; state.wait = RECONNECT_MS[0]; show("connected", "good"); };
  socket.onmessage = (event) => typeof event.data === "string" ? take(JSON.parse(event.data)) : takeRow(event.data);
  socket.onclose = () => {
    show("not connected", "bad");
    if (opened) retry(); else explain();
  };
}

function retry() {
  setTimeout(connect, state.wait);
  state.wait = Math.min(2 * state.wait, RECONNECT_MS[1]);
}

async function explain() { // a browser does not tell why a WebSocket was refused
  try {
    const answer = await fetch("api/emitters/0/recording", {headers: authorization()});
    if (answer.status === 401) {
      $("login-reason").textContent = (await answer.json()).error + ".";
      if (!$("login").open) $("login").showModal();
      return;
    }
  } catch (error) { /* the server is away */ }
  retry();
}

function authorization() { return state.token ? {Authorization: "Bearer " + state.token} : {}; }

function show(text, kind) { $("state").textContent = text; $("state").className = "state " + kind; }

// ---- messages

function take(message) {
  if (message.type === "status") takeStatus(message);
  else if (message.type === "emitters") takeEmitters(message.emitters);
  else if (message.type === "event") takeEvent(message);
  else if (message.type === "warning") addEvent("!", message.text, "", null, "warning");
  else if (message.type === "recording") addEvent("●", `recorded ${message.seconds.toFixed(1)} s: ${message.reason}`, "", null, "");
}

function takeStatus(status) {
  state.status = status;
  const accounts = status.accounts;
  $("centre").textContent = status.centre_hz === null ? "unknown" : (status.centre_hz / 1e6).toFixed(4) + " MHz";
  $("rate").textContent = (status.rate_hz / 1e6).toPrecision(4) + " MS/s";
  $("lag").textContent = (1000 * status.lag_s).toFixed(0) + " ms";
  $("missed").textContent = accounts.samples_in ? (100 * accounts.samples_missed / accounts.samples_in).toFixed(2) + " %" : "–";
  $("model").textContent = status.bundle;
  $("engine").textContent = status.engine.split(",")[0];
  const outputs = Object.entries(status.outputs).map(([name, o]) => `${name}: ${o.sent} sent, ${o.dropped + o.failed} lost`);
  $("footer").textContent = [
    status.source, `up ${duration(status.uptime_s)}`, `${(accounts.samples_in / 1e6).toFixed(0)} M samples`,
    `retunes ${accounts.retunes}`, `gaps ${accounts.gaps}`, ...outputs,
  ].join("   ·   ");
}

function takeEmitters(list) {
  state.emitters = new Map(list.map((each) => [each.emitter, each]));
  drawTable();
  drawSelected();
  state.dirty = true;
}

function takeEvent(event) {
  const known = state.emitters.get(event.emitter);
  state.emitters.set(event.emitter, {...(known || {best: []}), ...event, is_active: event.event !== "ended"});
  state.dirty = true;
  if (event.kind !== "signal" && event.kind !== "whole") return;
  const sign = {appeared: "+", changed: "~", ended: "−"}[event.event];
  const text = (event.label || "signal") + (event.changes.length ? ` (${event.changes.join(", ")})` : "");
  addEvent(sign, `${text} ${event.event}`, place(event), event.emitter, "", event.time);
}

function addEvent(sign, text, where, number, kind, time) {
  const item = document.createElement("li");
  item.className = kind;
  const at = time && time.utc ? time.utc.slice(11, 23) : new Date().toISOString().slice(11, 23);
  for (const [name, contents] of [["time", at], ["span", sign], ["span", text], ["span", where]]) {
    const part = document.createElement(name);
    part.textContent = contents;
    item.append(part);
  }
  item.lastChild.className = "place";
  if (number !== null) { item.onclick = () => select(number); item.style.cursor = "pointer"; }
  $("events").prepend(item);
  while ($("events").children.length > EVENTS_KEPT) $("events").lastChild.remove();
}

function takeRow(buffer) {
  const view = new DataView(buffer);
  if (view.getUint8(0) !== 1 || state.paused) return;
  const flags = view.getUint8(1), bins = view.getUint16(2, true);
  const row = {
    count: view.getUint32(4, true), start: view.getFloat64(8, true), rate: view.getFloat64(16, true),
    centre: flags & 1 ? view.getFloat64(24, true) : 0, time: flags & 2 ? view.getFloat64(32, true) : null,
    line: state.line,
  };
  const lowest = view.getFloat32(40, true), step = view.getFloat32(44, true);
  const steps = new Uint8Array(buffer, ROW_BYTES, bins);
  if (bins !== state.bins) { // a new geometry
    memory.width = state.bins = bins; memory.height = ROWS;
    state.rows = []; state.line = row.line = 0;
  }
  const median = lowest + step * Uint8Array.from(steps).sort()[bins >> 1];
  state.floor = state.floor === null || Math.abs(median - state.floor) > 15 ? median : state.floor + 0.05 * (median - state.floor);
  const image = new ImageData(bins, 1), low = state.floor - 4;
  for (let i = 0; i < bins; i++) {
    const colour = Math.max(0, Math.min(255, Math.round((lowest + step * steps[i] - low) * 255 / SHOWN_DB)));
    image.data.set([palette[3 * colour], palette[3 * colour + 1], palette[3 * colour + 2], 255], 4 * i);
  }
  memory.getContext("2d").putImageData(image, 0, row.line);
  state.rows.push(row);
  if (state.rows.length > ROWS) state.rows.shift();
  state.line = (state.line + 1) % ROWS;
  state.frames++;
  state.dirty = true;
  $("empty").hidden = true;
}
// ---- the waterfall: newest row at the top

function draw() {
  requestAnimationFrame(draw);
  if (!state.dirty) return;
  state.dirty = false;
  const canvas = $("waterfall"), scale = devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale); canvas.height = Math.round(height * scale);
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  state.hits = [];
  if (!state.rows.length) return;
  const newest = state.rows[state.rows.length - 1];
  const shown = state.rows.slice(-Math.min(ROWS, Math.max(80, Math.floor((height - TOP) / 2))));
  const view = {
    width: width - LEFT, height: height - TOP, rowHeight: (height - TOP) / Math.max(80, Math.floor((height - TOP) / 2)),
    low: newest.centre - newest.rate / 2, rate: newest.rate, rows: shown,
  };
  drawRows(context, view);
  drawAxes(context, view, newest);
  drawBoxes(context, view, newest);
}

function drawRows(context, view) {
  context.save();
  context.beginPath(); context.rect(LEFT, TOP, view.width, view.height); context.clip();
  context.imageSmoothingEnabled = false;
  context.fillStyle = "#0d0828"; context.fillRect(LEFT, TOP, view.width, view.height);
  view.rows.forEach((row, i) => {
    const y = TOP + (view.rows.length - 1 - i) * view.rowHeight;
    const x = LEFT + (row.centre - row.rate / 2 - view.low) / view.rate * view.width;
    context.drawImage(memory, 0, row.line, state.bins, 1, x, y, row.rate / view.rate * view.width, view.rowHeight + 0.6);
  });
  context.restore();
}

function drawAxes(context, view, newest) {
  const style = getComputedStyle(document.documentElement), text = style.getPropertyValue("--weak");
  context.fillStyle = text; context.strokeStyle = text;
  context.font = "12px system-ui, sans-serif";
  const step = niceStep(view.rate / Math.max(2, view.width / 110));
  context.textAlign = "center"; context.textBaseline = "bottom";
  for (let f = Math.ceil(view.low / step) * step; f <= view.low + view.rate; f += step) {
    const x = LEFT + (f - view.low) / view.rate * view.width;
    if (x < LEFT + 22 || x > LEFT + view.width - 28) continue;
    context.fillText((f / 1e6).toFixed(Math.max(0, Math.ceil(-Math.log10(step / 1e6)))), x, TOP - 8);
    context.fillRect(x, TOP - 5, 1, 5);
  }
  context.textAlign = "right";
  context.fillText("MHz", LEFT - 8, TOP - 8);
  context.textBaseline = "middle";
  const seconds = (row) => (newest.start - row.start) / newest.rate;
  let next = 0;
  const perPixel = seconds(view.rows[0]) / Math.max(1, (view.rows.length - 1) * view.rowHeight);
  const every = niceStep(Math.max(0.05, 50 * perPixel));
  for (let i = view.rows.length - 1; i >= 0; i--) {
    const ago = seconds(view.rows[i]);
    if (ago < next) continue;
    const y = TOP + (view.rows.length - 1 - i) * view.rowHeight;
    if (y < TOP + view.height - 8) context.fillText(next === 0 ? "now" : "−" + trim(next) + " s", LEFT - 8, Math.max(y, TOP + 7));
    next += every;
  }
}

function drawBoxes(context, view, newest) {
  context.save();
  context.beginPath(); context.rect(LEFT, TOP, view.width, view.height); context.clip();
  context.font = "600 12px system-ui, sans-serif"; context.textBaseline = "middle"; context.textAlign = "left";
  const taken = [];
  for (const emitter of [...state.emitters.values()].sort((a, b) => b.start_sample - a.start_sample)) {
    if (!["signal", "whole", "line"].includes(emitter.kind)) continue;
    const stop = emitter.is_active ? newest.start + newest.count : emitter.start_sample + emitter.n_samples;
    const top = rowAt(view, stop), bottom = rowAt(view, emitter.start_sample);
    if (bottom <= 0 || top >= view.rows.length) continue;
    const centre = emitter.centre_hz || 0;
    const x = LEFT + (centre + emitter.low_hz - view.low) / view.rate * view.width;
    const w = Math.max(3, (emitter.high_hz - emitter.low_hz) / view.rate * view.width);
    const y = TOP + top * view.rowHeight, h = Math.max(3, (bottom - top) * view.rowHeight);
    if (x > LEFT + view.width || x + w < LEFT) continue;
    const chosen = state.selected === emitter.emitter;
    context.lineWidth = chosen ? 3 : 1.5;
    context.setLineDash(emitter.is_active ? [] : [5, 3]);
    context.strokeStyle = chosen ? "#ffffff" : "rgba(255,255,255,.8)";
    context.strokeRect(x, y, w, h);
    context.setLineDash([]);
    state.hits.push({x, y, w, h, number: emitter.emitter});
    const text = emitter.kind === "line" ? "line" : label(emitter);
    const size = context.measureText(text).width + 10;
    const left = Math.min(Math.max(x, LEFT), LEFT + view.width - size);
    const up = Math.min(Math.max(y + 2, TOP + 2), TOP + view.height - 20);
    if (!chosen && taken.some((t) => left < t.x + t.w && left + size > t.x && up < t.y + 18 && up + 18 > t.y)) continue;
    taken.push({x: left, y: up, w: size});
    context.fillStyle = chosen ? "#ffffff" : "rgba(8,6,24,.82)";
    context.fillRect(left, up, size, 18);
    context.fillStyle = chosen ? "#101020" : "#ffffff";
    context.fillText(text, left + 5, up + 9.5);
  }
  context.restore();
}

function rowAt(view, sample) { // rows from the top at which a sample lies
  const rows = view.rows;
  let low = 0, high = rows.length;
  while (low < high) { const mid = (low + high) >> 1; if (rows[mid].start <= sample) low = mid + 1; else high = mid; }
  if (low === 0) return rows.length;
  const row = rows[low - 1];
  return rows.length - (low - 1) - Math.min(1, (sample - row.start) / row.count);
}

// ---- tables

function drawTable() {
  const rows = [...state.emitters.values()].filter((each) => each.kind === "signal" || each.kind === "whole");
  rows.sort((a, b) => b.is_active - a.is_active || b.start_sample + b.n_samples - a.start_sample - a.n_samples || a.emitter - b.emitter);
  const active = rows.filter((each) => each.is_active).length;
  $("emitter-count").textContent = `${active} on the air, ${rows.length - active} ended`;
  const body = $("emitters");
  const fresh = rows.slice(0, 100).map((each) => {
    const line = document.createElement("tr");
    line.tabIndex = 0;
    line.className = (each.is_active ? "" : "ended") + (each.emitter === state.selected ? " selected" : "");
    const cells = [
      each.label || "…", each.confidence === null ? "" : each.confidence.toFixed(2), middle(each).toFixed(4),
      width(each), each.snr_db.toFixed(0), String(each.n_bursts),
    ];
    cells.forEach((text, i) => {
      const cell = document.createElement("td");
      cell.textContent = text;
      if (i) cell.className = "number";
      line.append(cell);
    });
    line.title = each.is_active ? "on the air" : "ended";
    line.onclick = () => select(each.emitter);
    line.onkeydown = (event) => { if (event.key === "Enter") select(each.emitter); };
    return line;
  });
  body.replaceChildren(...fresh);
}

function select(number) {
  state.selected = number;
  $("message").textContent = "";
  drawTable(); drawSelected();
  state.dirty = true;
}

function drawSelected() {
  const each = state.emitters.get(state.selected);
  $("selected").hidden = !each;
  if (!each) return;
  $("selected-title").textContent = `${label(each)} · emitter ${each.emitter}`;
  const facts = [
    ["centre", middle(each).toFixed(4) + " MHz"], ["width", width(each) + " kHz"], ["SNR", each.snr_db.toFixed(1) + " dB"],
    ["power", each.power_db.toFixed(1) + " dBFS"], ["bursts", each.n_bursts], ["on the air", (100 * each.duty).toFixed(0) + " %"],
    ["looks", each.n_looks], ["since", each.time && each.time.utc ? each.time.utc.slice(11, 19) : trim(each.start_sample / each.rate_hz) + " s"],
  ];
  $("selected-facts").replaceChildren(...facts.map(([name, value]) => {
    const group = document.createElement("div");
    group.append(Object.assign(document.createElement("dt"), {textContent: name}), Object.assign(document.createElement("dd"), {textContent: value}));
    return group;
  }));
  $("bars").replaceChildren(...(each.best || []).map(([name, share]) => {
    const bar = document.createElement("div");
    bar.className = "bar";
    bar.append(
      Object.assign(document.createElement("span"), {textContent: name}),
      Object.assign(document.createElement("meter"), {value: share, max: 1}),
      Object.assign(document.createElement("span"), {textContent: (100 * share).toFixed(1) + " %", className: "number"}),
    );
    return bar;
  }));
}

async function download() {
  const number = state.selected;
  $("message").textContent = "cutting the samples out …";
  try {
    const answer = await fetch(`api/emitters/${number}/recording`, {headers: authorization()});
    if (!answer.ok) throw new Error((await answer.json()).error);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await answer.blob());
    link.download = `wavesfm-emitter-${number}.sigmf`;
    link.click();
    URL.revokeObjectURL(link.href);
    $("message").textContent = "saved as " + link.download;
  } catch (error) {
    $("message").textContent = String(error.message);
  }
}

// ---- texts

function label(each) {
  return (each.label || "signal") + (each.confidence === null || each.confidence === undefined ? "" : " " + Math.round(100 * each.confidence) + " %");
}
function middle(each) { return ((each.centre_hz || 0) + (each.low_hz + each.high_hz) / 2) / 1e6; }
function width(each) { return trim((each.high_hz - each.low_hz) / 1e3); }
function place(each) { return middle(each).toFixed(3) + " MHz"; }
function trim(value) { return String(Number(value.toPrecision(3))); }
function duration(s) { return s < 120 ? s.toFixed(0) + " s" : s < 7200 ? (s / 60).toFixed(0) + " min" : (s / 3600).toFixed(1) + " h"; }
function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((n) => n * power).find((step) => step >= least * 0.999);
}

// ---- controls

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = theme === "dark" ? "Light" : "Dark";
  localStorage.setItem("theme", theme);
  state.dirty = true;
}
$("theme").onclick = () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
$("pause").onclick = () => {
  state.paused = !state.paused;
  $("pause").textContent = state.paused ? "Resume" : "Pause";
  $("pause").setAttribute("aria-pressed", state.paused);
};
$("download").onclick = download;
$("deselect").onclick = () => select(null);
$("login").addEventListener("close", () => {
  state.token = $("token").value.trim();
  sessionStorage.setItem("token", state.token);
  connect();
});
$("waterfall").onclick = (event) => {
  const inside = state.hits.filter((h) => event.offsetX >= h.x - 4 && event.offsetX <= h.x + h.w + 4 && event.offsetY >= h.y - 4 && event.offsetY <= h.y + h.h + 4);
  inside.sort((a, b) => a.w * a.h - b.w * b.h);
  if (inside.length) select(inside[0].number);
};
addEventListener("resize", () => { state.dirty = true; });
setTheme(localStorage.getItem("theme") || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
connect();
requestAnimationFrame(draw);
