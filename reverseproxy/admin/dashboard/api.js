// Requests to the API, and the stream of events.

const BASE = "api/tunnel/v1/";
const KEY = "reverseproxy-token";

let token = sessionStorage.getItem(KEY) ?? "";

export class Refused extends Error {
  constructor(status, title, body = {}) {
    super(title);
    this.status = status;
    this.body = body;
  }
}

// The token is kept until the tab is closed: neither in a cookie nor on disk.
export function setToken(text) {
  token = text;
  if (text) sessionStorage.setItem(KEY, text);
  else sessionStorage.removeItem(KEY);
}

export const hasToken = () => token !== "";

async function send(path, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.authorization = `Bearer ${token}`;
  const answer = await fetch(BASE + path, { ...options, headers, credentials: "same-origin", cache: "no-store" });
  if (answer.ok) return answer;
  let body = {};
  try {
    body = await answer.json();
  } catch {
    // The body is not JSON, so it comes from a proxy in between.
  }
  throw new Refused(answer.status, body.title ?? `${answer.status} ${answer.statusText}`, body);
}

export async function get(path) {
  return (await send(path)).json();
}

export async function change(method, path, body, type = "application/json") {
  const options = { method };
  if (body) Object.assign(options, { body, headers: { "content-type": type } });
  return (await send(path, options)).json();
}

// Get all pages of a list, one after the other, with a pause, in milliseconds, between two of them.
// Yields each answer, with its items and problems.
export async function* pages(path, limit = 100, pause = 0) {
  let after = "";
  do {
    if (after && pause) await new Promise((resolve) => setTimeout(resolve, pause));
    const join = path.includes("?") ? "&" : "?";
    const page = await get(`${path}${join}limit=${limit}&after=${encodeURIComponent(after ?? "")}`);
    yield page;
    after = page.next;
  } while (after !== null);
}

export async function all(path) {
  const items = [];
  for await (const page of pages(path, 200)) items.push(...page.items);
  return items;
}

// Receive events, and reconnect forever.  EventSource is not used, as it can't send a token.
export async function listen(told, state) {
  let pause = 500;
  for (;;) {
    try {
      const answer = await send("events");
      state("live");
      pause = 500;
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const blocks = (rest + value).split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) {
          const data = block.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
          const kind = block.split("\n").find((line) => line.startsWith("event: "));
          if (data.length) told({ kind: kind?.slice(7), ...JSON.parse(data.join("\n")) });
        }
      }
      state("lost");
    } catch (error) {
      state(error instanceof Refused && error.status === 401 ? "refused" : "lost");
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(pause * 2, 8000);
  }
}
