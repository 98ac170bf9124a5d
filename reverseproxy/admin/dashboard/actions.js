// The dialog of one agent with its actions, the token, and the color scheme.

import { Refused, change, hasToken, setToken } from "./api.js";
import { $, age, ask, bytes, clock, count, el, fill, plural, rate, seconds, spark, toast } from "./dom.js";
import { agents, elsewhereOf, historyOf, missing, nameOf, proofOf, rateOf, touch } from "./fleet.js";

let opened = "";
let before = null;

const path = (id) => `agents/${encodeURIComponent(id)}`;

export function report(error) {
  if (error instanceof Refused && error.status === 403) toast(`Not allowed: ${error.message}`);
  else toast(error.message || String(error));
}

// The problems of an action, as text: which servers or workers could not be reached, and why.
const problemsOf = (answer) => (answer.problems ?? []).map((each) => {
  const who = each.server ? `server ${each.server}` : each.worker ? `worker ${each.worker}` : "";
  return who ? `${who}: ${each.problem}` : each.problem;
});

// Do an action, and show its result with any problems.
async function act(text, work) {
  try {
    const problems = problemsOf(await work());
    toast(problems.length ? `${text}, but not everywhere: ${problems.join("; ")}` : text);
  } catch (error) {
    report(error);
  }
}

export async function drain(id) {
  const agent = agents.get(id);
  if (!agent) return;
  const answer = await ask({
    title: `Drain ${nameOf(agent)}?`,
    text: `It gets no more requests, and its connections (${count(agent.connections)}) are closed when those in progress have ended. `
      + "It is banned for the time below, unless the ban is lifted.",
    fields: [{ name: "seconds", label: "Ban in seconds", value: "3600", inputmode: "numeric", required: true }],
    action: "Drain", danger: true,
  });
  if (answer === null) return;
  await act(`${nameOf(agent)} is drained`, async () => {
    const done = await change("POST", `${path(id)}/drain?for=${encodeURIComponent(answer.seconds)}`);
    touch(id);
    return done;
  });
}

export async function kick(id) {
  const agent = agents.get(id);
  if (!agent) return;
  const answer = await ask({
    title: `Kick ${nameOf(agent)}?`,
    text: `Its connections (${count(agent.connections)}) are closed at once, and requests in progress on them fail. `
      + "Without a ban it may join again at once. A ban is for all agents with the same proved identity.",
    fields: [{ name: "seconds", label: "Ban in seconds (empty: no ban)", value: "", inputmode: "numeric" }],
    action: "Kick", danger: true,
  });
  if (answer === null) return;
  await act(`${nameOf(agent)} is kicked`, async () => {
    const done = await change("DELETE", path(id) + (answer.seconds ? `?ban=${encodeURIComponent(answer.seconds)}` : ""));
    touch(id);
    return done;
  });
}

export async function resume(id) {
  await act("Its bans are lifted", () => change("POST", `${path(id)}/resume`));
}

export async function liftBan(exclusion) {
  await act("The ban is lifted", () => change("DELETE", `exclusions/${encodeURIComponent(exclusion)}`));
}

// the dialog of one agent

function facts(agent) {
  const lacks = missing(agent);
  const answered = agent.requests_by_class ?? {};
  return [
    ["Identity", [agent.identity, " ", proofOf(agent)]],
    ["Claimed name", agent.claimed_host_name ? `“${agent.claimed_host_name}”` : "–"],
    ["Kind", `${agent.kind}${agent.kind === "mosn" ? "" : `, ${agent.mux ? "many streams on each connection" : "one request at a time"}`}`],
    ["TLS", agent.tls ? `${agent.tls.version ?? "yes"}${agent.tls.cipher ? `, ${agent.tls.cipher}` : ""}` : "none"],
    ["Clusters", agent.clusters.join(", ")],
    ["Connections", el("span", { class: lacks ? "bad" : "" }, lacks ? `${agent.healthy} of ${agent.most_connections}, the most so far` : count(agent.connections))],
    ["Streams", `${count(agent.streams)}, ${plural(agent.in_flight, "request")} in progress`],
    ["Addresses", agent.addresses.join(", ")],
    ["Requests", `${count(agent.requests)}, ${rate(rateOf(agent.id))}/s`],
    ["Responses", Object.entries(answered).map(([name, number]) => `${name}: ${count(number)}`).join(", ") || "–"],
    ["p50, p99", `${seconds(agent.p50_seconds)}, ${seconds(agent.p99_seconds)}`],
    ["Round trip", seconds(agent.rtt_seconds)],
    ["Bytes", `${bytes(agent.bytes?.received)} to it, ${bytes(agent.bytes?.sent)} from it`],
    elsewhereOf(agent) ? ["Connections to other servers", elsewhereOf(agent)] : null,
    agent.since === null ? null : ["Since", `${clock(agent.since)}, ${age(Date.now() / 1000 - agent.since)}`],
    ["Last error", agent.last_error ? el("span", { class: "bad" }, `${clock(agent.last_error.time)}: ${agent.last_error.reason}`) : "none"],
    agent.workers?.length ? ["Workers", agent.workers.join(", ")] : null,
    agent.weight === undefined ? null : ["Weight", String(agent.weight)],
    agent.excluded ? ["Banned", el("span", { class: "bad" }, `${agent.excluded.why}, for ${age(agent.excluded.seconds)}`)] : null,
  ].filter(Boolean);
}

export function show() {
  const drawer = $("drawer");
  if (!opened) return;
  const agent = agents.get(opened);
  const focused = drawer.contains(document.activeElement) ? document.activeElement.id : "";
  const close = el("button", { type: "button", id: "drawer-close", "aria-label": "Close", onclick: hide }, "✕");
  if (!agent) {
    fill(drawer, el("header", {}, el("h2", {}, "The agent has left"), close), el("div", { class: "buttons" },
      el("button", { type: "button", id: "drawer-resume", onclick: () => resume(opened) }, "Lift its bans")));
  } else {
    fill(drawer,
      el("header", {}, el("h2", {}, nameOf(agent)), close),
      spark(historyOf(agent.id), 30),
      el("dl", {}, facts(agent).map(([term, value]) => [el("dt", {}, term), el("dd", {}, value)])),
      el("div", { class: "buttons" },
        el("button", { type: "button", id: "drawer-drain", onclick: () => drain(agent.id) }, "Drain…"),
        el("button", { type: "button", id: "drawer-kick", class: "danger", onclick: () => kick(agent.id) }, "Kick…"),
        agent.excluded ? el("button", { type: "button", id: "drawer-resume", onclick: () => resume(agent.id) }, "Lift its bans") : null));
  }
  drawer.hidden = false;
  if (focused) $(focused)?.focus();
}

export function openAgent(id) {
  if (!opened) before = document.activeElement;
  opened = id;
  show();
  $("drawer-close").focus();
}

export function hide() {
  opened = "";
  $("drawer").hidden = true;
  before?.focus();
  before = null;
}

export const openedAgent = () => opened;

// the token

export async function askToken(reason = "") {
  const answer = await ask({
    title: "Token",
    text: `${reason ? `${reason}. ` : ""}It is kept until this tab is closed. Leave the field empty to remove it.`,
    fields: [{ name: "token", label: "A token of tokens_file", type: "password", autocomplete: "off" }],
    action: hasToken() ? "Replace" : "Use",
  });
  if (answer === null) return false;
  setToken(answer.token);
  return true;
}

export async function showKeys(tabs) {
  const key = (name) => el("dt", {}, el("kbd", {}, name));
  await ask({
    title: "Keyboard shortcuts",
    action: null,
    content: el("dl", {},
      tabs.map(([name, label], i) => [key(String(i + 1)), el("dd", {}, label)]),
      key("/"), el("dd", {}, "search agents"),
      key("j"), el("dd", {}, "next agent; k: previous agent; Enter: show it"),
      key("d"), el("dd", {}, "drain the agent that is shown; x: kick it"),
      key("t"), el("dd", {}, "theme: light, dark, or that of the system"),
      key("Esc"), el("dd", {}, "close")),
  });
}

// color scheme

const THEMES = ["system", "light", "dark"];
const system = matchMedia("(prefers-color-scheme: dark)");
let theme = localStorage.getItem("reverseproxy-theme") ?? "system";

function applyTheme() {
  const dark = theme === "dark" || (theme === "system" && system.matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  $("theme-button").textContent = { system: "Theme", light: "Light", dark: "Dark" }[theme] ?? "Theme";
}

export function nextTheme() {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  localStorage.setItem("reverseproxy-theme", theme);
  applyTheme();
}

export function startTheme() {
  system.addEventListener("change", applyTheme);
  applyTheme();
}
