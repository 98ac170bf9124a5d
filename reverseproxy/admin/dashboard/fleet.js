// All agents, by id, in a list of which only the visible rows have elements.

import { get, pages } from "./api.js";
import { $, age, count, el, fill, plural, rate, seconds, spark } from "./dom.js";

const ROW = 44;
const SPARE = 6;
const PLACES = 30;
const MOST_LINES = 600;
const BATCH = 100;
const WHOLE = 1000;
const PAUSE = 200;

export const agents = new Map();
const lines = new Map();
const dirty = new Set();
const chosen = { cluster: "", text: "", state: "", sort: "name" };

let order = [];
let stale = true;
let selected = "";
let seen = null; // while all are fetched: those that are known to be there
let open = () => {};
let shown = new Map();

// the identity: the proved one comes first, and the claimed one is marked as such
export function nameOf(agent) {
  if (!agent.proved) return agent.claimed_host_name || agent.addresses?.[0] || agent.id;
  return agent.token ?? agent.identity.replace(/^certificate:/, "");
}

export function proofOf(agent) {
  if (!agent.proved) return el("span", { class: "pill warn" }, "unproved");
  return el("span", { class: "pill good" }, agent.token ? "token" : "certificate");
}

// The connections to other servers of the fleet: "b: 2"; empty if there are none.
export const elsewhereOf = (agent) => Object.entries(agent.elsewhere ?? {}).map(([server, at]) => `${server}: ${count(at.connections)}`).join(", ");

export const missing = (agent) => Math.max(0, (agent.most_connections ?? agent.connections) - agent.healthy);
export const historyOf = (id) => lines.get(id)?.rates ?? [];
export const rateOf = (id) => lines.get(id)?.rates.at(-1) ?? NaN;

function note(agent, now) {
  agents.set(agent.id, agent);
  seen?.add(agent.id);
  const known = lines.get(agent.id);
  if (!known) {
    if (lines.size >= MOST_LINES) lines.delete(lines.keys().next().value);
    lines.set(agent.id, { at: now, requests: agent.requests, rates: [] });
    return;
  }
  const passed = (now - known.at) / 1000;
  if (passed < 0.5) return;
  if (agent.requests >= known.requests) known.rates.push((agent.requests - known.requests) / passed);
  if (known.rates.length > PLACES) known.rates.shift();
  Object.assign(known, { at: now, requests: agent.requests });
}

// Get all agents, page by page, so that the list fills gradually; with pauses once it is full.
export async function load() {
  if (seen) return;
  seen = new Set();
  let whole = true;
  try {
    for await (const page of pages("agents", BATCH, agents.size ? PAUSE : 0)) {
      if (page.problems.length) whole = false;
      for (const agent of page.items) {
        seen.add(agent.id);
        agents.set(agent.id, agent);
      }
      stale = true;
      draw();
    }
    // The agents of a worker that has not answered are unknown.
    if (whole) for (const id of agents.keys()) if (!seen.has(id)) agents.delete(id);
    stale = true;
    draw();
  } finally {
    seen = null;
  }
}

// After an event about an agent: request it again, with the next batch.
export function touch(id) {
  dirty.add(id);
}

export async function refresh() {
  const now = performance.now();
  if (dirty.size > WHOLE) {
    dirty.clear();
    await load();
    return;
  }
  const ids = [...dirty].slice(0, BATCH);
  for (const id of ids) dirty.delete(id);
  const changed = ids.length > 0;
  for (const id of shown.keys()) if (ids.length < BATCH && !ids.includes(id)) ids.push(id);
  if (selected && !ids.includes(selected) && agents.has(selected)) ids.push(selected);
  if (!ids.length) return;
  const page = await get(`agents?limit=${ids.length}&ids=${ids.map(encodeURIComponent).join(",")}`);
  const found = new Set();
  for (const agent of page.items) {
    found.add(agent.id);
    note(agent, now);
  }
  if (!page.problems.length) for (const id of ids) if (!found.has(id)) agents.delete(id);
  stale = stale || changed || found.size < ids.length;
  draw();
}

// filter and order

const KEYS = {
  name: (agent) => nameOf(agent).toLowerCase(),
  requests: (agent) => -agent.requests,
  p99: (agent) => -(agent.p99_seconds ?? -1),
  rtt: (agent) => -(agent.rtt_seconds ?? -1),
  since: (agent) => -agent.since,
  connections: (agent) => -missing(agent),
};

function matches(agent, text) {
  if (chosen.cluster && !agent.clusters.includes(chosen.cluster)) return false;
  if (chosen.state === "missing" && !missing(agent)) return false;
  if (chosen.state === "errors" && !agent.errors) return false;
  if (chosen.state === "unproved" && agent.proved) return false;
  if (!text) return true;
  return [agent.identity, agent.claimed_host_name, agent.id, ...agent.addresses, ...agent.clusters]
    .some((each) => each?.toLowerCase().includes(text));
}

function arrange() {
  const text = chosen.text.toLowerCase();
  const key = KEYS[chosen.sort];
  const keyed = [];
  for (const agent of agents.values()) if (matches(agent, text)) keyed.push([key(agent), agent.id]);
  keyed.sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : a[1] < b[1] ? -1 : 1));
  order = keyed.map((pair) => pair[1]);
  stale = false;
}

export function choose(changes) {
  Object.assign(chosen, changes);
  stale = true;
  $("grid").scrollTop = 0;
  draw();
}

export const chosenCluster = () => chosen.cluster;

// drawing

function makeRow(id) {
  const cells = Array.from({ length: 7 }, (_, i) => el("span", { role: "gridcell", class: ["who", "", "number", "rate", "number", "number", "number"][i] }));
  const row = el("div", { class: "row", role: "row", id: `agent-${id}` }, cells);
  row.addEventListener("click", () => { select(id); open(id); });
  return { row, cells };
}

function drawRow({ row, cells }, agent, index) {
  row.style.transform = `translateY(${index * ROW}px)`;
  row.setAttribute("aria-rowindex", String(index + 2));
  row.setAttribute("aria-selected", String(agent.id === selected));
  const lacks = missing(agent);
  const more = agent.proved && agent.claimed_host_name ? `claims “${agent.claimed_host_name}” · ` : "";
  fill(cells[0], el("span", { class: "name" }, el("b", {}, nameOf(agent)), proofOf(agent),
    agent.excluded ? el("span", { class: "pill bad" }, "banned") : null),
    el("i", {}, `${more}${agent.addresses[0] ?? ""}`));
  fill(cells[1], agent.clusters.join(", "));
  fill(cells[2], el("span", { class: lacks ? "bad" : "" }, lacks ? `${agent.healthy} of ${agent.most_connections}` : agent.connections ? count(agent.connections) : ""),
    elsewhereOf(agent) ? el("i", {}, `at ${elsewhereOf(agent)}`) : null);
  fill(cells[3], spark(historyOf(agent.id), PLACES), el("span", { class: "number" }, rate(rateOf(agent.id))));
  fill(cells[4], seconds(agent.p99_seconds));
  fill(cells[5], seconds(agent.rtt_seconds));
  fill(cells[6], agent.since === null ? "–" : age(Date.now() / 1000 - agent.since));
}

export function draw() {
  const grid = $("grid");
  if (grid.clientHeight === 0) return;
  if (stale) arrange();
  const first = Math.max(0, Math.floor(grid.scrollTop / ROW) - SPARE);
  const last = Math.min(order.length, Math.ceil((grid.scrollTop + grid.clientHeight) / ROW) + SPARE);
  const rows = $("rows");
  rows.style.height = `${order.length * ROW}px`;
  grid.setAttribute("aria-rowcount", String(order.length + 1));
  const next = new Map();
  for (let i = first; i < last; i++) {
    const id = order[i];
    const agent = agents.get(id);
    if (!agent) continue;
    const made = shown.get(id) ?? makeRow(id);
    drawRow(made, agent, i);
    next.set(id, made);
    if (made.row.parentNode !== rows) rows.append(made.row);
  }
  for (const [id, made] of shown) if (!next.has(id)) made.row.remove();
  shown = next;
  if (selected && next.has(selected)) grid.setAttribute("aria-activedescendant", `agent-${selected}`);
  else grid.removeAttribute("aria-activedescendant");
  $("count").textContent = order.length === agents.size ? plural(agents.size, "agent") : `${count(order.length)} of ${plural(agents.size, "agent")}`;
  $("empty").hidden = order.length > 0;
  $("empty").textContent = agents.size ? "No agent matches." : "No agent has joined yet.";
}

function select(id) {
  selected = id;
  draw();
}

function move(step) {
  if (!order.length) return;
  const at = order.indexOf(selected);
  const next = Math.min(order.length - 1, Math.max(0, at < 0 ? 0 : at + step));
  const grid = $("grid");
  const top = next * ROW;
  const room = grid.clientHeight - 32;
  if (top < grid.scrollTop) grid.scrollTop = top;
  else if (top + ROW > grid.scrollTop + room) grid.scrollTop = top + ROW - room;
  select(order[next]);
}

const STEPS = {
  ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity,
};

export function start(opened) {
  open = opened;
  const grid = $("grid");
  let waiting = false;
  grid.addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  });
  grid.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in STEPS) {
      const step = STEPS[event.key];
      move(Number.isFinite(step) ? step : Math.sign(step) * order.length);
    } else if (event.key === "Enter" && selected) open(selected);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  $("search").addEventListener("input", (event) => choose({ text: event.target.value }));
  $("search").addEventListener("keydown", (event) => { if (event.key === "ArrowDown" || event.key === "Enter") grid.focus(); });
  $("state").addEventListener("change", (event) => choose({ state: event.target.value }));
  $("sort").addEventListener("change", (event) => choose({ sort: event.target.value }));
  new ResizeObserver(draw).observe(grid);
}
