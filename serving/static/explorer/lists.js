// How a list is shown: its products with strength and evidence, its age, and the call that asks it.

import { curl } from "./api.js";
import { ago, moment, sourceOf, strength } from "./texts.js";

const shown = new WeakMap();

// An element with attributes (those that are false are left out) and children.
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== false) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// Show a list in its section: {about, source, call, answer, items, empty}. Of items, each is
// {id, name, href, current, strength, evidence}. A list that is shown already is left as it is.
export function showList(section, list, now) {
  fill(section, JSON.stringify(list), () => parts(list, now));
}

// Forget what is shown, and say instead why nothing is.
export function showNothing(section, why) {
  fill(section, why, () => [element("p", { class: "quiet" }, why)]);
}

// Put under the title what `make` makes, unless it stands there already, by its text. Where the focus is
// in a section that changes, it stays on its product, or goes to the title where that is gone.
function fill(section, text, make) {
  if (shown.get(section) === text) return;
  shown.set(section, text);
  const title = section.querySelector("h2"); // stays in the document, for it may have the focus
  const focused = section.contains(document.activeElement) ? document.activeElement : title;
  while (title.nextSibling) title.nextSibling.remove();
  title.after(...make());
  if (focused === title) return;
  const links = [...section.querySelectorAll("a")];
  (links.find((link) => link.href === focused.href) ?? title).focus();
}

function parts(list, now) {
  const made = [element("p", { class: "about" }, list.about)];
  if (list.source) made.push(element("p", { class: "quiet source" }, sourceOf(list.source)));
  if (list.items.length) {
    const most = Math.max(...list.items.map((item) => item.strength));
    made.push(element("ol", { class: "products" }, ...list.items.map((item) => product(item, most))));
  } else {
    made.push(element("p", { class: "empty" }, list.empty));
  }
  if (list.answer?.generated_at) made.push(age(list.answer, now));
  if (list.call) made.push(howToAsk(list.call));
  return made;
}

function product(item, most) {
  const bar = element("span", { class: "bar", "aria-hidden": "true" }, element("span"));
  const share = most > 0 ? Math.max(0, item.strength / most) : 0;
  bar.firstChild.style.inlineSize = `${Math.round(100 * share)}%`;
  return element(
    "li",
    {},
    element("a", { href: item.href, title: item.id, "aria-current": String(item.current) }, item.name),
    element(
      "span",
      { class: "strength", title: "comparable within this list only" },
      bar,
      element("span", { class: "visually-hidden" }, "strength "),
      strength(item.strength),
    ),
    element("span", { class: "evidence" }, item.evidence),
  );
}

function age(answer, now) {
  const through = answer.orders_through;
  const made = element("p", { class: "quiet age" }, "Made ", time(answer.generated_at, now));
  if (through) made.append(", knows orders until ", time(through, now, moment(through)));
  return made;
}

function time(text, now, words = ago(text, now)) {
  return element("time", { datetime: text, title: moment(text) }, words);
}

function howToAsk(call) {
  const code = element("code", {}, curl(call));
  const copy = element("button", { type: "button", class: "copy", "aria-live": "polite" }, "Copy");
  copy.addEventListener("click", async () => {
    copy.textContent = (await copied(code)) ? "Copied" : "Selected";
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  });
  const line = element("pre", { tabindex: "0", "aria-label": "The HTTP call" }, code);
  return element("div", { class: "call" }, line, copy);
}

// Whether the text of a node is in the clipboard; where that is closed to the page, it is selected.
async function copied(node) {
  try {
    await navigator.clipboard.writeText(node.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(node);
    return false;
  }
}
