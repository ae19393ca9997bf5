// The page: what the address asks for is fetched and shown. The address is the only state:
// #user=ID or #guest, and &product=ID.

import { Refused, ask, calls, hasKey, useKey } from "./api.js";
import { element, showList, showNothing } from "./lists.js";
import { searching } from "./search.js";
import { because, measures, repeat } from "./texts.js";

const byId = (id) => document.getElementById(id);
const INTEGER = /^-?\d+$/;
const sections = { topBuys: byId("top-buys"), buyAgain: byId("buy-again"), together: byId("bought-together") };
const names = new Map(); // by product id; null: it has none
const keyRefused = element("p", { id: "key-refused", role: "alert" });
let examples = [];
let turn = 0;
let timer;

const nameOf = (id) => names.get(id) ?? `Product ${id}`;

function wanted() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const user = asked.get("user") || null;
  const anybody = user === null && !asked.has("guest");
  return { user: anybody ? (examples[0] ?? null) : user, product: asked.get("product") || null };
}

function address(user, product) {
  const whose = user === null ? "guest" : `user=${encodeURIComponent(user)}`;
  return `#${whose}${product ? `&product=${encodeURIComponent(product)}` : ""}`;
}

async function show() {
  const own = ++turn;
  clearTimeout(timer);
  document.body.classList.add("asking");
  try {
    if (!examples.length) examples = (await ask(calls.users())).user_ids;
    const view = await fetched(wanted());
    if (own !== turn) return;
    render(view);
    untell();
  } catch (error) {
    if (own === turn) tell(error);
  } finally {
    if (own === turn) document.body.classList.remove("asking");
  }
}

// All that is shown. Without a product, it is the first that the customer should buy.
async function fetched({ user, product }) {
  const [topBuys, buyAgain] = await Promise.all([
    ask(calls.topBuys(user)),
    user === null ? null : ask(calls.buyAgain(user)),
  ]);
  const together = product ?? topBuys.products[0]?.product_id ?? null;
  const boughtTogether = together === null ? null : await ask(calls.boughtTogether(together));
  const view = { user, product, together, topBuys, buyAgain, boughtTogether };
  await learnNames(view);
  return view;
}

async function learnNames({ together, topBuys, buyAgain, boughtTogether }) {
  const products = [topBuys, buyAgain, boughtTogether].flatMap((answer) => answer?.products ?? []);
  const behind = products.flatMap(({ because }) => (because?.kind === "similar" ? because.purchases : []));
  const ids = [together, ...[...products, ...behind].map((one) => one.product_id)];
  await learn(ids);
}

async function learn(ids) {
  const unknown = [...new Set(ids)].filter((id) => id && !names.has(id));
  if (!unknown.length) return;
  const found = (await ask(calls.names(unknown))).names;
  for (const id of unknown) names.set(id, found[id] ?? null);
}

function render(view) {
  const { user, together, topBuys, buyAgain, boughtTogether } = view;
  const now = new Date();
  const whose = user === null ? "A guest" : `Customer ${user}`;
  const item = (product, strength, evidence) => ({
    id: product.product_id,
    name: nameOf(product.product_id),
    href: address(user, product.product_id),
    current: product.product_id === together,
    strength,
    evidence,
  });
  showList(
    sections.topBuys,
    {
      about: `For ${user === null ? "guests" : `customer ${user}`}`,
      source: topBuys.source,
      call: calls.topBuys(user),
      answer: topBuys,
      items: topBuys.products.map((p) => item(p, p.score, because(p.because, nameOf))),
      empty: "Nothing is published yet.",
    },
    now,
  );
  showList(
    sections.buyAgain,
    {
      about: user === null ? "Guests have no history: choose a customer." : `For customer ${user}`,
      source: user === null ? undefined : "rhythm",
      call: user !== null && calls.buyAgain(user),
      answer: buyAgain,
      items: buyAgain?.products.map((p) => item(p, p.score, repeat(p, now))) ?? [],
      empty: user === null ? "" : "Nothing is known that they buy again.",
    },
    now,
  );
  showList(
    sections.together,
    {
      about: together === null ? "Choose a product." : `With ${nameOf(together)}`,
      source: boughtTogether?.products.length ? boughtTogether.source : undefined,
      call: together !== null && calls.boughtTogether(together),
      answer: boughtTogether,
      items: boughtTogether?.products.map((p) => item(p, p.strength, measures(p.evidence))) ?? [],
      empty: together === null ? "" : "No product shares enough orders with it.",
    },
    now,
  );
  choices(view);
  byId("status").textContent =
    `${whose}: ${count(topBuys)} in Top Buys, ${count(buyAgain)} in Buy Again` +
    (together === null ? "." : `, ${count(boughtTogether)} bought together with ${nameOf(together)}.`);
}

const count = (answer) => answer?.products.length ?? 0;

// The customers to choose from, and the marks of what is chosen.
function choices({ user, product }) {
  const link = (id) =>
    element("li", {}, element("a", { href: address(id, product), "aria-current": String(id === user) }, id));
  byId("examples").replaceChildren(...examples.slice(0, 8).map(link));
  byId("users").replaceChildren(...examples.map((id) => element("option", { value: id })));
  byId("as-guest").href = address(null, product);
  byId("as-guest").setAttribute("aria-current", String(user === null));
  if (document.activeElement !== byId("user")) byId("user").value = user ?? ""; // nobody types
}

// Say what is wrong. What passes is tried again by itself.
function tell(error) {
  if (!(error instanceof Refused)) throw error;
  const asksForKey = error.status === 401;
  byId("access").hidden = !asksForKey;
  byId("problem").hidden = asksForKey;
  byId("status").textContent = "";
  if (asksForKey) tellOfKey(hasKey() ? error.message : "");
  else tellOnce(error.message + (error.retryAfter ? " Trying again by itself." : ""));
  for (const section of Object.values(sections)) showNothing(section, "Not available now.");
  if (error.retryAfter) timer = setTimeout(show, 1000 * error.retryAfter);
}

// Nothing is wrong: the focus goes on to the lists from what is taken away.
function untell() {
  const told = [byId("problem"), byId("access")];
  const hasFocus = told.some((one) => one.contains(document.activeElement));
  for (const one of told) one.hidden = true;
  if (hasFocus) sections.topBuys.querySelector("h2").focus();
}

// Say why the key was refused that was given, if one was.
function tellOfKey(why) {
  keyRefused.textContent = why;
  byId("key").setAttribute("aria-invalid", String(Boolean(why)));
  byId("key").focus();
  byId("key").select();
}

// What has been said already is not written again, for each time it would be read out.
function tellOnce(problem) {
  const text = byId("problem").querySelector("p");
  if (text.textContent !== problem) text.textContent = problem;
}

// The products whose names have the text, after the one whose id it is: what looks like an id of a shop
// with integer ids is offered even where no name is found of it.
async function found(text) {
  const products = await named(text);
  let exact = products.find((product) => product.product_id === text);
  if (!exact && INTEGER.test(text)) {
    await learn([text]);
    exact = { product_id: text, name: names.get(text) };
  }
  return exact ? [exact, ...products.filter((product) => product !== exact)] : products;
}

async function named(text) {
  try {
    const { products } = await ask(calls.search(text));
    for (const { product_id: id, name } of products) names.set(id, name);
    return products;
  } catch (error) {
    if (error.status === 400) return []; // it has neither letters nor digits
    if (error.status === 401) tell(error);
    throw error;
  }
}

byId("customer").addEventListener("submit", (event) => {
  event.preventDefault();
  location.hash = address(byId("user").value.trim(), wanted().product);
});
byId("access").addEventListener("submit", (event) => {
  event.preventDefault();
  tellOfKey("");
  try {
    useKey(byId("key").value.trim());
  } catch (error) {
    tellOfKey(error.message);
    return;
  }
  show();
});
byId("key").setAttribute("aria-describedby", keyRefused.id);
byId("access").append(keyRefused);
byId("problem").querySelector("button").addEventListener("click", show);
searching(byId("find"), found, (id) => {
  location.hash = address(wanted().user, id);
});
addEventListener("hashchange", async () => {
  const before = sections.together.querySelector(".about")?.textContent;
  await show();
  const about = sections.together.querySelector(".about");
  if (about && about.textContent !== before) sections.together.scrollIntoView({ block: "nearest" });
});
show();
