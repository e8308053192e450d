// The review page: clips in a grid, filters and thresholds to the left, one clip in full to the right.
import { Sliders, short } from "/sliders.js";

const LIMIT = 60;
const $ = (id) => document.getElementById(id);
const state = { about: null, sliders: null, rows: [], at: 0, starts: [0], next: null, reason: "", focus: "", down: true };

function element(tag, about = {}, ...inside) {
  const made = Object.assign(document.createElement(tag), about);
  made.append(...inside);
  return made;
}

async function ask(path, body) {
  const how = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let answer, given;
  try {
    answer = await fetch(path, how);
    given = await answer.json();
  } catch (error) {
    throw new Error("The server does not answer. Labels given so far are saved; start it again to go on.");
  }
  if (!answer.ok) throw new Error(given.error || answer.statusText);
  return given;
}

function complain(error) {
  $("error").textContent = error ? error.message : "";
  $("error").hidden = !error;
}

function toast(text) {
  $("toast").textContent = text;
  $("toast").hidden = false;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => ($("toast").hidden = true), 2200);
}

const reviewer = () => $("reviewer").value.trim();

function query() {
  return {
    rules: state.sliders.moved(), verdict: $("verdict").value, label: $("label").value, reason: state.reason,
    changed: $("changed").checked, alike: $("alike").checked, search: $("search").value, where: $("where").value,
    sort: $("sort").value, descending: !state.down, reviewer: reviewer(), focus: state.focus, limit: LIMIT,
    start: state.starts[state.starts.length - 1],
  };
}

// Moving a slider asks often: the latest question alone is answered.
let asking = 0;
async function refresh(keep) {
  const number = ++asking;
  let answer;
  try {
    answer = await ask("/api/rows", query());
  } catch (error) {
    if (number === asking) { complain(error); $("where").classList.toggle("wrong", $("where").value !== ""); }
    return;
  }
  if (number !== asking) return;
  complain(null);
  $("where").classList.remove("wrong");
  const selected = keep && state.rows[state.at] ? state.rows[state.at].row : null;
  state.rows = answer.rows;
  state.next = answer.next;
  state.at = Math.max(0, answer.rows.findIndex((row) => row.row === selected));
  drawCounts(answer);
  drawReasons(answer.reasons);
  drawBorderline(answer.borderline);
  const grid = answer.rows.map((row, i) => tile(row, () => select(i)));
  $("grid").replaceChildren(...grid);
  $("empty").hidden = answer.rows.length > 0;
  const last = answer.first + answer.rows.length;
  $("shown").textContent = answer.total ? `${(answer.first + 1).toLocaleString("en")} to ${last.toLocaleString("en")} of ${answer.total.toLocaleString("en")}` : "";
  $("before").disabled = state.starts.length < 2;
  $("after").disabled = state.next === null;
  select(state.at, false);
}

function restart() {
  state.starts = [0];
  return refresh(true);
}

let soon;
const restartSoon = () => { clearTimeout(soon); soon = setTimeout(restart, 40); };

function drawCounts(answer) {
  const counts = ["accepted", "rejected", "failed"].filter((name) => answer.counts[name] || name !== "failed");
  $("counts").replaceChildren(...counts.map((name) =>
    element("span", {}, element("b", { className: name, textContent: answer.counts[name].toLocaleString("en") }), ` ${name}`)));
  const moved = Object.keys(state.sliders.moved()).length > 0;
  $("reset").hidden = $("copy").hidden = !moved;
  $("effect").replaceChildren();
  if (moved) {
    $("effect").append(element("span", { className: "gain", textContent: `+${answer.gained.toLocaleString("en")}` }), " come in, ",
      element("span", { className: "loss", textContent: `−${answer.lost.toLocaleString("en")}` }), " fall out");
  }
  drawProgress(answer);
}

function drawProgress(answer) {
  const { accept, reject, flag } = answer.labelled;
  const parts = [element("span", {}, element("b", { id: "n-labelled", textContent: accept + reject + flag }), ` labelled: ${accept} accept, ${reject} reject, ${flag} flag`)];
  for (const pair of answer.agreement) {
    const kappa = pair.kappa === null ? "undefined" : pair.kappa.toFixed(2);
    const text = `κ ${kappa} ${pair.reviewers.join(" and ")}`;
    parts.push(element("span", { className: "kappa", title: `Cohen's kappa: ${pair.agree} of ${pair.clips} clips alike`, textContent: text }));
  }
  $("progress").replaceChildren(...parts.slice(0, 4));
}

function drawReasons(reasons) {
  reasons.sort((a, b) => b.rows - a.rows);
  if (state.reason && !reasons.some((one) => one.reason === state.reason)) reasons.push({ reason: state.reason, rows: 0, alone: 0, meaning: "" });
  $("reasons").replaceChildren(...reasons.map((one) => {
    const button = element("button", { className: one.reason === state.reason ? "on" : "", title: `${one.meaning}\n${one.alone} by this rule alone` },
      element("span", { textContent: one.reason }), element("span", { textContent: one.rows.toLocaleString("en") }));
    button.addEventListener("click", () => { state.reason = state.reason === one.reason ? "" : one.reason; restart(); });
    return button;
  }));
  if (!reasons.length) $("reasons").replaceChildren(element("span", { className: "soft", textContent: "Nothing is rejected." }));
}

function drawBorderline(found) {
  $("borderline").hidden = !found || !found.rows.length;
  if ($("borderline").hidden) return;
  const close = element("button", { textContent: "close" });
  close.addEventListener("click", () => { state.focus = ""; refresh(true); });
  const line = element("div", { className: "line" });
  let before = null;
  for (const row of found.rows) {
    const made = tile(row, () => show(row.row));
    made.querySelector(".text").replaceChildren(short(row.value));
    if (before !== null && before < found.threshold && row.value >= found.threshold) made.classList.add("cut");
    before = row.value;
    line.append(made);
  }
  $("borderline").replaceChildren(
    element("h2", {}, `Nearest to ${found.rule} ${short(found.threshold)} `, close), line);
}

function stage(row, size) {
  const made = element("div", { className: "stage" });
  if (row.frames) {
    const image = element("img", { loading: "lazy", alt: "", src: `/frames/${row.row}.webp` });
    image.addEventListener("error", () => image.replaceWith(row.preview ? strip(row) : "no image"));
    made.append(image);
  } else if (row.preview) made.append(strip(row));
  else made.append("no preview");
  return made;
}

function strip(row) {
  const made = element("div", { className: "strip" });
  made.style.backgroundImage = `url(/preview/${row.row}.webp)`;
  return made;
}

function tile(row, chosen) {
  const why = row.reasons.length ? row.reasons.join(", ") : row.verdict;
  const made = element("div", { className: "tile", title: `${row.uid} ${row.action}` }, stage(row),
    element("div", { className: "text" }, element("b", { textContent: row.uid }),
      element("div", { className: "action", textContent: row.action }),
      element("div", { className: `why ${row.verdict}`, textContent: why })));
  made.dataset.row = row.row;
  // Of the opened clip, `alike` lists the others; of a tile it counts all.
  const near = Array.isArray(row.alike) ? row.alike.length + 1 : row.alike;
  if (near > 1) made.append(element("span", { className: "near", textContent: `≈ ${near}`, title: "assets that look alike: d" }));
  badge(made, row.label);
  made.addEventListener("click", chosen);
  return made;
}

function badge(made, label) {
  made.querySelector(".badge")?.remove();
  if (label) made.append(element("span", { className: `badge ${label}`, textContent: label }));
}

function select(at, scroll = true) {
  if (!state.rows.length) { $("detail").replaceChildren(); return; }
  state.at = Math.min(Math.max(at, 0), state.rows.length - 1);
  for (const other of $("grid").querySelectorAll(".on")) other.classList.remove("on");
  const made = $("grid").children[state.at];
  made.classList.add("on");
  if (scroll) made.scrollIntoView({ block: "nearest" });
  show(state.rows[state.at].row);
}

let showing = 0;
async function show(row) {
  const number = ++showing;
  try {
    const clip = await ask("/api/clip", { row, rules: state.sliders.moved(), reviewer: reviewer() });
    if (number === showing) drawDetail(clip);
  } catch (error) { complain(error); }
}

function drawDetail(clip) {
  state.clip = clip;
  const parts = [element("h2", { textContent: clip.uid }), element("div", { className: "soft", textContent: clip.action || " " }), stage(clip)];
  if (clip.preview) {
    const wide = element("div", { className: "stage wide" }, element("img", { src: `/preview/${clip.row}.webp`, alt: "window's start, a quarter, half" }));
    if (!clip.frames) parts.pop();
    parts.push(wide);
    if (!clip.frames) parts.splice(2, 0, stage(clip));
  }
  const say = element("div", { className: "say" });
  for (const [label, key] of [["accept", "a"], ["reject", "r"], ["flag", "f"]]) {
    const button = element("button", { className: `${label} ${clip.label === label ? "on" : ""}`, textContent: `${label}  ${key}` });
    button.addEventListener("click", () => give(clip.row, clip.label === label ? null : label, false));
    say.append(button);
  }
  parts.push(say, element("div", {}, "rules: ", element("span", { className: clip.verdict, textContent: clip.verdict }),
    clip.margin === null ? "" : element("span", { className: "soft", textContent: `, a factor of ${short(10 ** clip.margin)} from a threshold` })));
  const why = clip.reasons.map((code) => element("li", {}, element("code", { textContent: code }), ` ${clip.meanings[code]}`));
  parts.push(element("ul", {}, ...why));
  const others = Object.entries(clip.others).map(([who, label]) => `${who}: ${label}`).join(", ");
  if (others) parts.push(element("p", { className: "soft", textContent: others }));
  if (clip.alike.length) {
    const button = element("button", { textContent: `${clip.alike.length} look alike, side by side  d` });
    button.addEventListener("click", sideBySide);
    parts.push(element("p", {}, button));
  }
  const table = element("table");
  const known = new Map(state.about.columns.map((column) => [column.name, column.text]));
  // Measures first, then what only identifies the clip.
  const rank = ([name, value]) => (/^(bytes|attempts|action_index|import_seconds|measure_seconds)$/.test(name) ? 2 : typeof value === "string" ? (name === "caption" || name === "license" ? 0 : 2) : 1);
  for (const [name, value] of Object.entries(clip.values).sort((a, b) => rank(a) - rank(b))) {
    const text = typeof value === "number" ? short(value) : Array.isArray(value) ? value.map((v) => (typeof v === "number" ? short(v) : v)).join(" ") : String(value);
    if (name !== "uid" && name !== "action" && name !== "status") {
      table.append(element("tr", { title: known.get(name) || "" }, element("td", { textContent: name }), element("td", { textContent: text })));
    }
  }
  parts.push(table);
  $("detail").replaceChildren(...parts);
}

function sideBySide() {
  const clip = state.clip;
  if (!clip || !clip.alike.length) { toast("No other asset looks like this one"); return; }
  $("pairs").replaceChildren(...[clip, ...clip.alike].map((row) => {
    const made = tile(row, () => {});
    const table = element("table");
    for (const [name, value] of Object.entries(row.measures)) table.append(element("tr", {}, element("td", { textContent: name }), element("td", { textContent: short(value) })));
    for (const label of ["accept", "reject"]) {
      const button = element("button", { textContent: label });
      button.addEventListener("click", async () => { await give(row.row, label, false); badge(made, label); });
      made.querySelector(".text").append(button, " ");
    }
    made.querySelector(".text").append(table);
    return made;
  }));
  $("side").showModal();
}

// What is said quickly one after another is written in that order.
let saying = Promise.resolve();
function inTurn(work) {
  const done = saying.then(work);
  saying = done.catch(() => {});
  return done;
}

// The label is shown at once and taken back if the server could not write it down.
async function give(row, label, on = true) {
  const at = state.rows.findIndex((one) => one.row === row);
  const before = at >= 0 ? state.rows[at].label : null;
  const put = (value) => {
    if (at < 0 || state.rows[at]?.row !== row) return;
    state.rows[at].label = value;
    badge($("grid").children[at], value);
  };
  put(label);
  if (on) step(1);
  const who = reviewer();
  try {
    const answer = await inTurn(() => ask("/api/label", { row, label, reviewer: who }));
    complain(null);
    drawProgress(answer);
    if (!on) show(row);
  } catch (error) {
    put(before);
    complain(error);
  }
}

async function undo() {
  try {
    const answer = await inTurn(() => ask("/api/undo", { reviewer: reviewer() }));
    if (!answer.name) { toast("Nothing to undo"); return; }
    toast(answer.label ? `${answer.name}: ${answer.label} again` : `${answer.name}: label taken back`);
    drawProgress(answer);
    const at = state.rows.findIndex((one) => one.row === answer.row);
    if (at < 0) return;
    state.rows[at].label = answer.label;
    badge($("grid").children[at], answer.label);
    select(at);
  } catch (error) { complain(error); }
}

async function turn(on) {
  if (on && state.next !== null) state.starts.push(state.next);
  else if (!on && state.starts.length > 1) state.starts.pop();
  else return;
  await refresh(false);
  document.querySelector("main").scrollTop = 0;
  select(on ? 0 : state.rows.length - 1);
}

function step(by) {
  const to = state.at + by;
  if (to >= state.rows.length && state.next !== null) turn(true);
  else if (to < 0 && state.starts.length > 1) turn(false);
  else select(to);
}

function across() {
  const tops = [...$("grid").children].map((made) => made.offsetTop);
  const first = tops.findIndex((top) => top > tops[0]);
  return first < 0 ? tops.length : first;
}

const KEYS = {
  a: () => give(state.rows[state.at].row, "accept"), r: () => give(state.rows[state.at].row, "reject"),
  f: () => give(state.rows[state.at].row, "flag"), x: () => give(state.rows[state.at].row, null, false),
  u: undo, d: sideBySide, n: () => turn(true), b: () => turn(false),
  ArrowRight: () => step(1), l: () => step(1), ArrowLeft: () => step(-1), h: () => step(-1),
  ArrowDown: () => step(across()), j: () => step(across()), ArrowUp: () => step(-across()), k: () => step(-across()),
  "/": () => $("search").focus(), "?": () => $("help").showModal(),
};

document.addEventListener("keydown", (event) => {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) && event.target.type !== "checkbox";
  if (event.key === "Escape" && typing) event.target.blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const work = KEYS[event.key] || KEYS[event.key.toLowerCase()];
  if (!work || (!state.rows.length && !"u/?b".includes(event.key))) return;
  event.preventDefault();
  work();
});

async function start() {
  const about = (state.about = await ask("/api/about"));
  const name = about.source.split("/").filter(Boolean).pop() || about.source;
  document.title = `Review: ${name}`;
  $("source").textContent = name;
  $("source").title = `${about.source}\nlabels: ${about.labels}`;
  $("reviewer").value = localStorage.getItem("reviewer") || about.reviewer;
  $("sort").append(element("option", { value: "", textContent: "as in the table" }),
    ...about.columns.map((column) => element("option", { value: column.name, textContent: column.name === "margin" ? "margin (borderline first)" : column.name, title: column.text })));
  state.sliders = new Sliders($("sliders"), about.sliders, (focus) => { state.focus = focus; restartSoon(); });
  for (const id of ["verdict", "label", "sort", "alike", "changed"]) $(id).addEventListener("change", (event) => { event.target.blur(); restart(); });
  $("search").addEventListener("input", () => { clearTimeout(soon); soon = setTimeout(restart, 150); });
  $("where").addEventListener("change", restart);
  $("where").addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); restart(); } });
  $("reviewer").addEventListener("change", () => { localStorage.setItem("reviewer", reviewer()); $("reviewer").blur(); restart(); });
  $("way").addEventListener("click", () => { state.down = !state.down; $("way").textContent = state.down ? "↑" : "↓"; restart(); });
  $("reset").addEventListener("click", () => { state.sliders.reset(); });
  $("copy").addEventListener("click", copyRules);
  $("before").addEventListener("click", () => turn(false));
  $("after").addEventListener("click", () => turn(true));
  $("help-button").addEventListener("click", () => $("help").showModal());
  for (const dialog of document.querySelectorAll("dialog")) dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  $("side").addEventListener("close", () => refresh(true));
  await refresh(false);
  document.body.dataset.ready = "1";
}

async function copyRules() {
  const { yaml } = await ask("/api/rules", { rules: state.sliders.moved() });
  try {
    await navigator.clipboard.writeText(yaml);
    toast("Copied: save it as rules.yaml for curate --rules");
  } catch (error) { prompt("Rules for curate --rules:", yaml.trim().replaceAll("\n", "; ")); }
}

start().catch(complain);
