// The configuration: its state, the changes that a reload would make, and the reload.

import { Refused, change, get } from "./api.js";
import { $, ask, clock, count, date, el, fill, toast } from "./dom.js";

const PARTS = ["listeners", "clusters", "routers", "agents"];
const SIGNS = { added: ["+", "good"], changed: ["~", "warn"], removed: ["−", "bad"] };

const list = (items, kind) => (items?.length
  ? el("ul", { class: kind }, items.map((each) => el("li", {}, each.path ? [el("span", { class: "mono" }, each.path), " "] : null, each.message ?? String(each))))
  : null);

// The differences, by kind: names with a sign.
function differences(changes = {}) {
  const rows = [];
  for (const part of PARTS) {
    for (const [what, [sign, kind]] of Object.entries(SIGNS)) {
      for (const name of changes[part]?.[what] ?? []) {
        rows.push(el("li", {}, el("b", { class: kind }, `${sign} `), `${part.slice(0, -1)} `, el("span", { class: "mono" }, name), el("span", { class: "soft" }, ` ${what}`)));
      }
    }
  }
  if (changes.admin) rows.push(el("li", {}, el("b", { class: "warn" }, "~ "), "the admin API"));
  for (const key of changes.settings ?? []) rows.push(el("li", {}, el("b", { class: "warn" }, "~ "), el("span", { class: "mono" }, key)));
  return rows;
}

function shown(report, done) {
  const rows = differences(report.changes);
  const restart = Object.entries(report.needs_restart ?? {});
  return [
    el("p", {}, el("b", {}, report.successful === false ? "The configuration is invalid" : done), el("span", { class: "soft" }, ` · generation ${count(report.generation ?? 1)}`)),
    list(report.problems, "bad"),
    report.successful === false ? null : rows.length ? el("ul", { class: "plain" }, rows) : el("p", { class: "soft" }, "No differences."),
    restart.length ? [el("p", { class: "warn" }, "Changes that need a restart"), el("ul", {}, restart.map(([key, why]) => el("li", {}, el("span", { class: "mono" }, key), ` ${why}`)))] : null,
    report.warnings?.length ? [el("p", { class: "warn" }, "Warnings"), list(report.warnings)] : null,
  ];
}

const DONE = { validate: "The configuration is valid", diff: "The configuration is valid; changes", reload: "Reloaded; changes" };

async function run(action, text, output) {
  if (action === "reload" && (await ask({
    title: "Reload the configuration?", action: "Reload",
    text: "The file is read and checked. If it is valid, it is applied; if not, nothing changes.",
  })) === null) return;
  output.className = "answer";
  fill(output, el("p", { class: "soft" }, "…"));
  try {
    const report = await change("POST", `config:${action}`, text, /^\s*[{[]/.test(text) ? "application/json" : "application/yaml");
    fill(output, shown(report, DONE[action]));
    if (action === "reload") toast("The configuration is reloaded");
    await drawState();
  } catch (error) {
    output.className = "answer bad";
    if (error instanceof Refused && error.body.problems) fill(output, shown(error.body, ""));
    else fill(output, el("p", {}, error.message));
  }
}

async function drawState() {
  const state = await get("config");
  fill($("config-state"),
    el("span", { class: state.successful ? "pill good" : "pill bad" }, state.successful ? "in use" : "the last reload failed"), " ",
    el("span", { class: "mono" }, state.file), ` · generation ${count(state.generation)}`,
    state.last_success ? ` · since ${date(state.last_success)} ${clock(state.last_success)}` : "");
}

export async function draw() {
  const view = $("view-configuration");
  if (!view.childElementCount) {
    const output = el("div", { class: "answer", role: "status", id: "config-answer" }, "The result of a check, of a comparison or of a reload is shown here.");
    const text = el("textarea", { id: "config-text", spellcheck: "false", "aria-label": "Another configuration" });
    const button = (action, label, kind) => el("button", {
      type: "button", id: `config-${action}`, class: kind, onclick: () => run(action, action === "reload" ? "" : text.value.trim(), output),
    }, label);
    fill(view, el("div", { class: "configuration" },
      el("p", { id: "config-state" }),
      el("div", { class: "buttons" }, button("validate", "Check"), button("diff", "Compare"), button("reload", "Reload…", "primary")),
      output,
      el("details", {}, el("summary", { class: "soft" }, "Check or compare another configuration instead of the file"), text)));
  }
  await drawState();
}
