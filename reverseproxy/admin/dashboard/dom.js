// Elements and text formats.  Values from the API are only put into text nodes,
// as agents choose their own names.

export const $ = (id) => document.getElementById(id);

// Create an element; attributes that are undefined or false are left out.
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : String(value));
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export function fill(parent, ...children) {
  parent.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
}

const SVG = "http://www.w3.org/2000/svg";

function svg(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// A sparkline of the latest values, with a fixed number of points, so that it grows from the right.
export function spark(values, places = 60) {
  const known = values.filter((value) => Number.isFinite(value));
  const most = Math.max(...known, 0);
  const made = svg("svg", {
    class: most > 0 ? "spark" : "spark quiet", viewBox: "0 0 100 24", preserveAspectRatio: "none", "aria-hidden": "true",
  });
  if (known.length > 1) {
    const step = 100 / (places - 1);
    const begin = 100 - step * (known.length - 1);
    const points = known.map((value, i) => [
      (begin + i * step).toFixed(1), (22 - (most > 0 ? value / most : 0) * 19).toFixed(1),
    ]);
    const line = points.map(([x, y], i) => `${i ? "L" : "M"}${x} ${y}`).join("");
    made.append(svg("path", { class: "area", d: `${line}L100 24L${points[0][0]} 24Z` }), svg("path", { class: "line", d: line }));
  }
  return made;
}

// numbers and times

export function count(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 1e9) return `${(value / 1e9).toFixed(1)} G`;
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)} M`;
  return value >= 1e4 ? value.toLocaleString("en").replaceAll(",", "\u202f") : String(value);
}

export function rate(value) {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  return value >= 100 ? count(Math.round(value)) : value.toFixed(value >= 10 ? 0 : 1);
}

export function seconds(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value < 0.001) return `${Math.max(1, Math.round(value * 1e6))} µs`;
  if (value < 0.1) return `${(value * 1000).toFixed(1)} ms`;
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  return value < 100 ? `${value.toFixed(1)} s` : age(value);
}

export function age(value) {
  if (!Number.isFinite(value)) return "–";
  const past = Math.max(0, Math.round(value));
  if (past < 60) return `${past} s`;
  if (past < 3600) return `${Math.floor(past / 60)} min`;
  if (past < 86400) return `${Math.floor(past / 3600)} h ${Math.floor((past % 3600) / 60)} m`;
  return `${Math.floor(past / 86400)} d ${Math.floor((past % 86400) / 3600)} h`;
}

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (value < 1000) return `${unit === "B" ? value : value.toFixed(1)} ${unit}`;
    value /= 1000;
  }
  return `${value.toFixed(1)} TB`;
}

// A share as a percentage; a share above 0 is never shown as 0.
export function share(part, whole) {
  if (!whole || !part) return "0 %";
  const percent = (part / whole) * 100;
  if (percent < 0.1) return "< 0.1 %";
  return `${percent.toFixed(percent < 10 ? 1 : 0)} %`;
}

export const clock = (stamp) => new Date(stamp * 1000).toLocaleTimeString("en-GB");
export const date = (stamp) => new Date(stamp * 1000).toISOString().slice(0, 10);
export const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

// A table; a cell is a text, a node, or [text or node, class].
export function table(columns, rows, empty) {
  if (!rows.length) return el("div", { class: "sheet" }, el("p", { class: "empty" }, empty));
  const cell = (tag, content, extra = {}) => {
    const [inside, kind] = Array.isArray(content) ? content : [content, undefined];
    return el(tag, { ...extra, class: kind }, inside ?? "–");
  };
  return el("div", { class: "sheet" }, el("table", {},
    el("thead", {}, el("tr", {}, columns.map((column) => cell("th", column, { scope: "col" })))),
    el("tbody", {}, rows.map((row) => {
      const cells = Array.isArray(row) ? row : row.cells;
      return el("tr", { class: row.kind }, cells.map((content) => cell("td", content)));
    }))));
}

let hiding = 0;

export function toast(text) {
  const place = $("toast");
  place.textContent = text;
  place.hidden = false;
  clearTimeout(hiding);
  // Longer messages are shown for a longer time.
  hiding = setTimeout(() => { place.hidden = true; }, Math.max(6000, 80 * text.length));
}

// Show a dialog with fields; resolves with their values, or with null if it is cancelled.
export function ask({ title, text, fields = [], action = "OK", danger = false, content }) {
  const dialog = $("ask");
  if (dialog.open) dialog.close();
  return new Promise((resolve) => {
    let answer = null;
    const inputs = fields.map((field) => el("input", { "aria-label": field.label, autocomplete: "off", ...field }));
    const form = el("form", { method: "dialog" },
      el("h2", { id: "ask-title" }, title),
      text ? el("p", { class: "soft" }, text) : null,
      content ?? null,
      inputs.map((input, i) => el("label", {}, fields[i].label, input)),
      el("div", { class: "buttons" },
        action === null ? null : el("button", { type: "button", onclick: () => dialog.close() }, "Cancel"),
        el("button", { type: "submit", class: danger ? "danger" : "primary" }, action ?? "Close")));
    form.addEventListener("submit", () => {
      answer = Object.fromEntries(inputs.map((input) => [input.name, input.value.trim()]));
    });
    dialog.setAttribute("aria-labelledby", "ask-title");
    fill(dialog, form);
    dialog.addEventListener("close", () => resolve(answer), { once: true });
    dialog.showModal();
  });
}
