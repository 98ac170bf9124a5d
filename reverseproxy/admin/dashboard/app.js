// The page: the tabs, the periodic requests, and the keyboard shortcuts.

import { Refused, all, get, listen } from "./api.js";
import * as actions from "./actions.js";
import * as configuration from "./configuration.js";
import { $, age, count, el, fill, plural, rate, seconds, share, spark } from "./dom.js";
import * as fleet from "./fleet.js";
import * as panels from "./panels.js";

const TABS = [
  ["fleet", "Agents"],
  ["routes", "Routes"],
  ["refused", "Refused"],
  ["servers", "Servers"],
  ["peers", "Other servers"],
  ["certificates", "Certificates"],
  ["workers", "Workers"],
  ["configuration", "Configuration"],
  ["events", "Events"],
];

const hidden = new Set(["servers", "peers", "workers", "configuration"]);
const MOST_CLUSTERS = 500;
const badges = {};
const histories = new Map();
const outdated = new Set(); // views to draw again after events, of which there may be hundreds in a second
let view = "fleet";
let clusters = [];
let asking = false;

// tabs

const visibleTabs = () => TABS.filter(([name]) => !hidden.has(name));

function drawTabs() {
  fill($("tabs"), visibleTabs().map(([name, label]) => el("button", {
    type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `view-${name}`,
    "aria-selected": String(name === view), tabindex: name === view ? "0" : "-1", onclick: () => go(name),
  }, label, badges[name] ? el("span", { class: `badge ${badges[name].kind ?? ""}` }, badges[name].text) : null)));
}

function badge(name, text, kind) {
  const was = badges[name];
  if ((was?.text ?? "") === text && was?.kind === kind) return;
  if (text) badges[name] = { text, kind };
  else delete badges[name];
  const focused = document.activeElement?.id ?? "";
  drawTabs();
  if (focused.startsWith("tab-")) $(focused)?.focus();
}

function uncover(name, is) {
  if (hidden.has(name) !== is) return;
  if (is) hidden.delete(name);
  else hidden.add(name);
  drawTabs();
}

function go(name) {
  view = name;
  for (const [each] of TABS) $(`view-${each}`).hidden = each !== name;
  history.replaceState(null, "", `#${name}`);
  drawTabs();
  run(DRAW[name]);
}

const DRAW = {
  fleet: async () => fleet.draw(),
  routes: panels.drawRoutes,
  refused: panels.drawRefused,
  servers: panels.drawServers,
  peers: panels.drawPeers,
  certificates: panels.drawCertificates,
  workers: panels.drawWorkers,
  configuration: configuration.draw,
  events: panels.drawEvents,
};

// periodic requests

async function unauthorized(error) {
  if (asking) return;
  asking = true;
  try {
    if (await actions.askToken(error.message)) location.reload();
  } finally {
    asking = false;
  }
}

async function run(work) {
  try {
    await work();
    $("problem").hidden = true;
  } catch (error) {
    if (error instanceof Refused && error.status === 401) await unauthorized(error);
    else {
      $("problem").textContent = error instanceof Refused ? error.message : "The process does not respond.";
      $("problem").hidden = false;
    }
  }
}

function every(period, work) {
  let due = 0;
  let busy = false;
  return async (now) => {
    if (now < due || busy) return;
    busy = true;
    try {
      await run(work);
    } finally {
      due = performance.now() + period * 1000;
      busy = false;
    }
  };
}

// summary

let last = null;

function tile(label, value, note = "", values = null, kind = "") {
  return el("div", { class: `tile ${kind}` }, el("div", { class: "label" }, label), el("div", { class: "value" }, value),
    el("div", { class: "note" }, note), values ? spark(values) : null);
}

async function drawSummary() {
  const found = await get("summary");
  const now = performance.now();
  const passed = last ? (now - last.now) / 1000 : 0;
  const past = found.history;
  const requests = past.requests.map((each) => each / past.period);
  let perSecond = requests.at(-1) ?? NaN;
  let recent = null;
  if (last && passed > 0 && found.requests >= last.found.requests) {
    const more = found.requests - last.found.requests;
    perSecond = more / passed;
    recent = [Math.max(0, found.errors - last.found.errors), more];
  }
  last = { now, found };
  const lacks = [...fleet.agents.values()].reduce((sum, agent) => sum + fleet.missing(agent), 0);
  fill($("tiles"),
    tile("Agents", count(found.agents), plural(found.connections, "connection"), past.agents),
    tile("Connections missing", count(lacks), lacks ? "agents had more before" : "none", null, lacks ? "bad" : ""),
    tile("Requests/s", rate(perSecond), `${count(found.in_flight)} in progress`, requests),
    tile("Errors", recent ? share(...recent) : "–", `${count(found.errors)} in total`, past.errors, recent && recent[0] > 0.01 * recent[1] ? "bad" : ""),
    tile("p99", seconds(found.p99_seconds), `p50 ${seconds(found.p50_seconds)}`),
    tile("Waiting", count(found.waiting), found.waiting ? "requests wait for a host" : "no requests", null, found.waiting ? "bad" : ""));
  const who = found.caller.role === "operate" ? "" : " · read only";
  $("about").textContent = `${found.version} · up ${age(found.uptime_seconds)}${found.draining ? " · draining" : ""}${who}`;
  $("about").title = found.caller.hint;
  uncover("workers", found.workers > 0);
  uncover("servers", found.servers > 0);
  uncover("peers", found.features.includes("fleet"));
  uncover("configuration", found.features.includes("configuration"));
  badge("fleet", found.agents ? count(found.agents) : "");
  badge("refused", found.refused ? count(found.refused) : "", "bad");
  for (const [name, values] of Object.entries(past.clusters)) histories.set(name, values.map((each) => each / past.period));
}

// clusters

async function drawClusters() {
  clusters = await all("clusters");
  const by = new Map();
  for (const agent of fleet.agents.values()) for (const name of agent.clusters) by.set(name, (by.get(name) ?? 0) + 1);
  const chosen = fleet.chosenCluster();
  const focused = document.activeElement?.dataset?.cluster;
  const button = (name, label, facts, bad, values) => el("button", {
    type: "button", class: "cluster", "aria-pressed": String(name === chosen), "data-cluster": name,
    onclick: () => { fleet.choose({ cluster: name }); run(drawClusters); },
  }, el("span", { class: "name" }, label), el("span", { class: "facts" }, facts, bad ? el("span", { class: "bad" }, ` · ${bad}`) : null),
    values ? spark(values) : null);
  fill($("clusters"),
    clusters.length > 1 ? button("", "All clusters", plural(clusters.length, "cluster"), "", null) : null,
    clusters.slice(0, MOST_CLUSTERS).map((each) => button(each.name, each.name,
      `${by.has(each.name) ? plural(by.get(each.name), "agent") : plural(each.hosts, "host")} · ${rate((histories.get(each.name) ?? []).at(-1))}/s`,
      each.waiting ? `${count(each.waiting)} waiting` : each.healthy < each.hosts ? `${count(each.hosts - each.healthy)} down` : each.hosts ? "" : "no hosts",
      histories.get(each.name) ?? [])),
    clusters.length > MOST_CLUSTERS ? el("p", { class: "soft" }, `and ${plural(clusters.length - MOST_CLUSTERS, "more cluster")}`) : null);
  if (focused !== undefined) [...$("clusters").children].find((each) => each.dataset.cluster === focused)?.focus();
}

// events

const STATES = { live: "live", lost: "connection lost", refused: "token needed" };

function happened(event) {
  panels.noteEvent(event);
  if (event.agent) fleet.touch(event.agent);
  if (event.kind === "gap") run(fleet.load);
  outdated.add("events");
  if (event.kind === "refusal") outdated.add("refused");
}

function changed(state) {
  const was = $("live").dataset.state;
  $("live").dataset.state = state;
  $("live").textContent = STATES[state];
  if (state === "live" && was === "lost") run(fleet.load);
}

// keyboard shortcuts

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("ask").open) return;
  if (event.key === "Escape") {
    if (actions.openedAgent()) actions.hide();
    else if (document.activeElement === $("search")) $("grid").focus();
    return;
  }
  if (event.target.closest?.("input, select, textarea")) return;
  const number = Number(event.key);
  const tab = visibleTabs()[number - 1];
  if (tab) {
    go(tab[0]);
    $(`tab-${tab[0]}`).focus();
  } else if (event.key === "/") {
    go("fleet");
    $("search").focus();
  } else if (event.key === "t") actions.nextTheme();
  else if (event.key === "?") actions.showKeys(visibleTabs());
  else if (event.key === "d" && actions.openedAgent()) actions.drain(actions.openedAgent());
  else if (event.key === "x" && actions.openedAgent()) actions.kick(actions.openedAgent());
  else return;
  event.preventDefault();
}

function alongTabs(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const tabs = visibleTabs();
  const next = tabs[(tabs.findIndex(([name]) => name === view) + step + tabs.length) % tabs.length][0];
  go(next);
  $(`tab-${next}`).focus();
}

// start

const periodic = [
  every(2, drawSummary),
  every(4, drawClusters),
  every(2, async () => {
    await fleet.refresh();
    actions.show();
  }),
  every(120, fleet.load),
  every(3, async () => { if (["routes", "servers", "peers", "workers"].includes(view)) await DRAW[view](); }),
  every(6, async () => { if (view === "refused") await panels.drawRefused(); }),
  every(0.5, async () => { if (outdated.delete(view)) await DRAW[view](); }),
  every(300, async () => {
    const soon = await panels.drawCertificates();
    badge("certificates", soon ? count(soon) : "", "bad");
  }),
];

async function begin() {
  actions.startTheme();
  fleet.start(actions.openAgent);
  panels.start();
  document.addEventListener("keydown", key);
  $("tabs").addEventListener("keydown", alongTabs);
  $("token-button").addEventListener("click", async () => { if (await actions.askToken()) location.reload(); });
  $("theme-button").addEventListener("click", actions.nextTheme);
  $("help-button").addEventListener("click", () => actions.showKeys(visibleTabs()));
  const wanted = location.hash.slice(1);
  go(TABS.some(([name]) => name === wanted) ? wanted : "fleet");
  listen(happened, changed);
  for (;;) {
    // A hidden page makes no requests, but its stream of events continues.
    if (!document.hidden && !asking) for (const work of periodic) work(performance.now());
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

begin();
