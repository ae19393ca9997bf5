// Asking the API: the calls there are, the key that it may want, and what it says when it refuses.

const KEY = "api-key";
const LONGEST_KEY = 1000; // characters; any server and proxy takes a header of that many
const LIMIT = 10;

export const calls = {
  topBuys: (user) => path("/api/recommendations/top-buys", { user_id: user, limit: LIMIT, explain: true }),
  buyAgain: (user) => path("/api/recommendations/buy-again", { user_id: user, limit: LIMIT }),
  boughtTogether: (product) =>
    path(`/api/recommendations/bought-together/${encoded(product)}`, { limit: LIMIT, explain: true }),
  search: (text) => path("/api/explorer/products", { search: text, limit: 8 }),
  names: (products) => path("/api/explorer/names", { product_id: products }),
  users: () => "/api/explorer/users",
};

// What a person types into a shell to make a call.
export function curl(call) {
  const key = sessionStorage.getItem(KEY) ? ` -H "X-API-Key: $API_KEY"` : "";
  return `curl${key} '${location.origin}${call}'`;
}

export class Refused extends Error {
  constructor(status, detail, retryAfter) {
    super(detail);
    this.status = status;
    this.retryAfter = retryAfter; // in seconds; undefined: asking again will not help
  }
}

// The headers that let a call in, with the key that was given in this tab.
export function credentials() {
  const key = sessionStorage.getItem(KEY);
  return key ? { "X-API-Key": key } : {};
}

// The body that answers a call; raises Refused.
export async function ask(call) {
  let response;
  try {
    response = await fetch(call, { headers: credentials() });
  } catch {
    throw new Refused(0, "The service does not answer. Is it running?", 2);
  }
  const text = await response.text();
  if (response.ok) return JSON.parse(text, withTextIds);
  const wait = Number(response.headers.get("Retry-After")) || 2;
  throw new Refused(response.status, detailOf(text), [429, 503].includes(response.status) ? wait : undefined);
}

export const hasKey = () => Boolean(sessionStorage.getItem(KEY));

// Keep a key for this tab; raises Error for what cannot be one, for no header bears it.
export function useKey(key) {
  if (!key) throw new Error("These are only blanks. Paste the key here.");
  const odd = key.match(/[^ -~\u00a1-\u00ff]/u)?.[0];
  if (odd) {
    const code = odd.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    throw new Error(`An API key cannot have the character “${odd}” (U+${code}). Copy it once more.`);
  }
  if (key.length > LONGEST_KEY) throw new Error("This is longer than any API key. Copy the key alone.");
  sessionStorage.setItem(KEY, key);
}

// An integer id may be larger than a number of JavaScript can be: ids are text here. Numbers that
// stand in a list are ids too, for the API has no lists of others.
function withTextIds(name, value, context) {
  const isId = typeof value === "number" && (name.endsWith("_id") || Array.isArray(this));
  return isId ? (context?.source ?? String(value)) : value;
}

function detailOf(text) {
  try {
    const problem = JSON.parse(text);
    const errors = (problem.errors ?? []).map((error) => `${error.parameter}: ${error.detail}`);
    return [problem.detail, ...errors].join(" ");
  } catch {
    return "The service answers by something else than JSON.";
  }
}

function path(route, parameters) {
  const pairs = Object.entries(parameters)
    .filter(([, value]) => value !== null)
    .flatMap(([name, value]) => [value].flat().map((one) => `${name}=${encoded(one)}`));
  return `${route}?${pairs.join("&")}`;
}

function encoded(value) {
  return encodeURIComponent(value).replaceAll("'", "%27");
}
