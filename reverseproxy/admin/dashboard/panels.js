// All views except the list of agents.

import { all, get } from "./api.js";
import { liftBan } from "./actions.js";
import { $, age, clock, count, date, el, fill, plural, rate, seconds, share, table } from "./dom.js";

const DAY = 86400;

// Revocation lists are replaced each week or each day, certificates much less often.
const soonOf = (item) => (item.name.startsWith("the revocation list of ") ? DAY : 14 * DAY);
const noticeOf = (item) => (item.name.startsWith("the revocation list of ") ? DAY : 30 * DAY);

// routes

const before = new Map();

function rates(key, now, total) {
  const known = before.get(key);
  if (!known || now - known.at > 500) before.set(key, { at: now, total, rate: known && total >= known.total ? ((total - known.total) * 1000) / (now - known.at) : NaN });
  return before.get(key).rate;
}

function matchOf(rule) {
  const match = rule.match ?? {};
  const kind = ["path", "prefix", "regex"].find((each) => match[each]);
  const parts = [kind ? `${kind} ${match[kind]}` : "any path"];
  for (const header of match.headers ?? []) parts.push(`${header.name}${header.regex ? " like " : ": "}${header.value}`);
  for (const variable of match.variables ?? []) parts.push(`${variable.name}: ${variable.value ?? variable.regex}`);
  return parts.join(", ");
}

function actionOf(rule) {
  if (rule.direct_response) return `response ${rule.direct_response.status || 200}`;
  if (rule.redirect) return "redirect";
  const route = rule.route ?? {};
  if (route.cluster_name) return route.cluster_name;
  const weighted = (route.weighted_clusters ?? []).map((each) => `${each.cluster.name} (${each.cluster.weight})`);
  return weighted.join(", ") || (route.cluster_header ? `cluster in header ${route.cluster_header}` : "404");
}

let hits = new Set();

export async function drawRoutes() {
  const now = performance.now();
  const rules = await all("routes");
  fill($("routes"), table(
    ["Virtual host, domains", "Match", "Action", ["Requests/s", "number"], ["Requests", "number"], ["Errors", "number"], ["p50", "number"], ["p99", "number"]],
    rules.map((item) => {
      const figures = item.figures ?? {};
      return {
        kind: hits.has(item.place) ? "hit" : undefined,
        cells: [
          el("span", {}, item.virtual_host || item.router, el("small", {}, (item.domains ?? []).join(", "))),
          [matchOf(item.rule), "mono"],
          actionOf(item.rule),
          [rate(rates(item.place, now, figures.requests ?? 0)), "number"],
          [count(figures.requests ?? 0), "number"],
          [figures.errors ? `${count(figures.errors)} (${share(figures.errors, figures.requests)})` : "0", figures.errors ? "number bad" : "number"],
          [seconds(figures.p50_seconds), "number"],
          [seconds(figures.p99_seconds), "number"],
        ],
      };
    }),
    "No routes. A listener with tcp_proxy needs none."));
}

async function explain(event) {
  event.preventDefault();
  const query = new URLSearchParams({ method: $("explain-method").value || "GET", host: $("explain-host").value, path: $("explain-path").value || "/" });
  if ($("explain-header").value) query.append("header", $("explain-header").value);
  try {
    const { items } = await get(`routes:explain?${query}`);
    hits = new Set(items.map((item) => item.place).filter(Boolean));
    fill($("explained"), items.length ? items.map((item) => el("div", { class: item.outcome === "404" ? "answer bad" : "answer" },
      el("b", {}, item.listener), " → ", el("b", {}, item.outcome),
      item.why ? `: ${item.why}` : "",
      item.rule ? el("span", { class: "soft" }, `, by ${item.virtual_host || "the virtual host"}: ${matchOf(item.rule)}`) : "",
      item.place ? el("div", { class: "mono soft" }, item.place) : "")) : el("div", { class: "answer bad" }, "No listener has a router."));
    await drawRoutes();
  } catch (error) {
    fill($("explained"), el("div", { class: "answer bad" }, error.message));
  }
}

// other views

export async function drawRefused() {
  const [{ items }, kept] = await Promise.all([get("joins/refused?limit=200"), all("exclusions")]);
  const focused = document.activeElement?.id ?? "";
  fill($("view-refused"), kept.length ? [
    el("h2", { class: "soft" }, "Bans by operators"),
    table(["Target, agents", "Reason", ["Remaining", "number"], ""], kept.map((item) => [
      el("span", {}, item.target.join(" "), el("small", {}, item.agents.join(", "))),
      item.why, [age(item.seconds), "number"],
      el("button", { type: "button", id: `lift-${item.id}`, onclick: () => liftBan(item.id).then(drawRefused) }, "Lift ban"),
    ])),
    el("h2", { class: "soft" }, "Refused joins"),
  ] : null, table(["Time", "Agent", "Cluster", "Reason", "Remedy"], items.map((item) => [
    [clock(item.time), "number"],
    el("span", {}, item.proved ? item.identity.replace(/^(token|certificate):/, "") : item.address, el("small", {}, [item.claimed_host_name && `claims “${item.claimed_host_name}”`, item.proved && item.address].filter(Boolean).join(" · "))),
    el("span", {}, item.cluster || "–", el("small", {}, item.policy ? `policy ${item.policy}` : "no credential")),
    el("span", {}, el("span", { class: item.result === "too_many" ? "pill warn" : "pill bad" }, item.result.replaceAll("_", " ")), el("small", {}, item.reason)),
    item.remedy,
  ]), "No join has been refused."));
  if (focused.startsWith("lift-")) $(focused)?.focus();
  return items;
}

export async function drawServers() {
  const items = await all("servers");
  fill($("view-servers"), table(["Server", "Cluster", ["Serving", "number"], "Next attempt", "Last error"], items.map((item) => [
    item.server, item.cluster,
    [`${item.serving} of ${item.wanted}`, item.serving < item.wanted ? "number bad" : "number"],
    item.next_dial_seconds === null || item.next_dial_seconds === undefined ? "–" : `in ${seconds(item.next_dial_seconds)}`,
    item.last_error ? el("span", { class: item.serving < item.wanted ? "bad" : "soft" }, `${clock(item.last_error.time)}: ${item.last_error.reason}`) : "none",
  ]), "This process has no agents."));
  return items;
}

export async function drawPeers() {
  const found = await get("fleet");
  const { directory, servers: items } = found;
  const state = (item) => (item.state !== "up" ? [item.state, "bad"] : item.leaving ? ["leaving", "warn"] : ["up", "good"]);
  fill($("view-peers"),
    el("p", {}, `This server is ${found.server}. `, !directory ? "" : directory.up
      ? `The directory has ${plural(directory.servers + 1, "server")}.`
      : el("span", { class: "bad" }, "The directory can’t be reached; the known servers and agents stay in use.")),
    table(["Server", "Address", "Link", ["Agents", "number"], ["Forwarded", "number"], ["Received", "number"], ["In progress", "number"], ["Round trip", "number"]], items.map((item) => [
      el("span", {}, item.server, el("small", {}, item.worker ? `worker ${item.worker}` : "")),
      [item.address, "mono"],
      el("span", {}, el("span", { class: `pill ${state(item)[1]}` }, state(item)[0]), el("small", {}, item.problem)),
      [count(item.hosts), "number"], [count(item.forwarded), "number"], [count(item.received), "number"],
      [count(item.in_flight), "number"], [seconds(item.rtt_seconds), "number"],
    ]), "There are no other servers in the fleet."));
  return items;
}

export async function drawCertificates() {
  const items = await all("certificates");
  const now = Date.now() / 1000;
  const leftOf = (item) => (item.not_after === null ? Infinity : item.not_after - now);
  fill($("view-certificates"), table(["Certificate", "Used by", "Valid until", ["Remaining", "number"]], items.map((item) => {
    const left = leftOf(item);
    return [[item.name, "mono"], [item.use, "mono"], item.not_after === null ? "no expiry" : date(item.not_after),
      [left < 0 ? "expired" : age(left), left < soonOf(item) ? "number bad" : left < noticeOf(item) ? "number warn" : "number"]];
  }), "No certificates are in use."));
  return items.filter((item) => leftOf(item) < soonOf(item)).length;
}

export async function drawWorkers() {
  const { items } = await get("workers");
  fill($("view-workers"), table(["Worker", ["Process", "number"], "State", ["Restarts", "number"]], items.map((item) => [
    `worker ${item.worker}`, [String(item.pid ?? "–"), "number"],
    el("span", { class: item.ready ? "pill good" : "pill bad" }, item.ready ? "ready" : "not ready"),
    [count(item.restarts), item.restarts ? "number warn" : "number"],
  ]), "There are no workers, only one process."));
  return items;
}

const told = [];

export function noteEvent(event) {
  told.unshift(event);
  if (told.length > 300) told.pop();
}

const GOOD = { join: "good", reload: "good", reload_failed: "bad", leave: "", health: "warn", drain: "warn", kick: "bad", refusal: "bad", gap: "warn" };

export async function drawEvents() {
  const { items } = await get("audit?limit=50");
  fill($("view-events"),
    table(["Time", "Event", "Cluster", "Agent or host", "Reason"], told.map((event) => [
      [clock(event.time ?? Date.now() / 1000), "number"],
      el("span", { class: `pill ${GOOD[event.kind] ?? ""}` }, event.kind === "health" ? (event.healthy ? "healthy" : "unhealthy") : event.kind),
      event.cluster ?? "–",
      event.identity ? el("span", {}, event.identity, el("small", {}, [event.claimed_host_name && `claims “${event.claimed_host_name}”`, event.host].filter(Boolean).join(" · "))) : event.host ?? event.address ?? "–",
      event.reason ?? (event.missed ? `${count(event.missed)} events were skipped` : ""),
    ]), "No events since this page was opened."),
    el("h2", { class: "soft" }, "Changes by operators"),
    table(["Time", "Operator", "Action", "Agent", "Result"], items.map((item) => [
      [clock(item.time), "number"], item.caller, item.what, item.identity || item.agent || "–", item.told,
    ]), "No changes."));
}

export function start() {
  $("explain").addEventListener("submit", explain);
}

