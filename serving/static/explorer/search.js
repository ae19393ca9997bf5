// The search for a product: an input with a list of what it finds, by the ARIA combobox pattern.

import { element } from "./lists.js";

const PAUSE = 120; // milliseconds of no typing before it is searched

// Let a form with a combobox and a listbox search by `find(text)`, which resolves to products
// {product_id, name}, and tell `choose(id)`; no name: it has none. What is submitted without a choice is
// the first product found, or where nothing is, the text as an id.
export function searching(form, find, choose) {
  const input = form.querySelector("[role=combobox]");
  const list = form.querySelector("[role=listbox]");
  const told = element("p", { class: "quiet", "aria-live": "polite" }); // how much is found
  form.append(told);
  let asked = 0;
  let timer;

  const options = () => [...list.children].filter((child) => child.id);
  const active = () => list.querySelector("[aria-selected=true]");

  function activate(option) {
    active()?.setAttribute("aria-selected", "false");
    option?.setAttribute("aria-selected", "true");
    option?.scrollIntoView({ block: "nearest" });
    if (option) input.setAttribute("aria-activedescendant", option.id);
    else input.removeAttribute("aria-activedescendant");
  }

  function open(isOpen) {
    list.hidden = !isOpen;
    input.setAttribute("aria-expanded", String(isOpen));
    if (!isOpen) activate(null);
  }

  function close() {
    asked += 1; // what is still under way comes too late
    clearTimeout(timer);
    told.textContent = "";
    open(false);
  }

  function take(id) {
    close();
    input.value = "";
    choose(id);
  }

  async function search() {
    const turn = ++asked;
    const text = input.value.trim();
    let products = [];
    let failure;
    try {
      if (text) products = await find(text);
    } catch (error) {
      failure = error;
    }
    if (turn !== asked) return undefined;
    list.replaceChildren(...products.map(option));
    told.textContent = failure ? `The search does not work: ${failure.message}` : text && count(products);
    open(products.length > 0);
    return failure ? undefined : products;
  }

  function option({ product_id: id, name }, place) {
    const made = element(
      "li",
      { role: "option", id: `found-${place}`, "aria-selected": "false", "data-id": id },
      name ?? "Product",
      element("span", { class: "quiet" }, ` ${id}`),
    );
    made.addEventListener("pointerdown", (event) => event.preventDefault()); // keeps the focus
    made.addEventListener("click", () => take(id));
    return made;
  }

  input.addEventListener("input", () => {
    activate(null);
    clearTimeout(timer);
    timer = setTimeout(search, PAUSE);
  });
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    const all = options();
    if (event.key === "Escape") close();
    if (!["ArrowDown", "ArrowUp"].includes(event.key) || list.hidden || !all.length) return;
    event.preventDefault();
    const step = event.key === "ArrowDown" ? 1 : -1;
    const place = all.indexOf(active()) + (active() ? step : step > 0 ? 1 : 0);
    activate(all.at(place % all.length));
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    clearTimeout(timer);
    const chosen = active()?.dataset.id;
    const text = input.value.trim();
    if (chosen) take(chosen);
    else if (text) {
      const products = await search();
      if (products) take(products[0]?.product_id ?? text);
    }
  });
}

function count({ length }) {
  if (!length) return "No name found.";
  return length === 1 ? "1 product to choose from." : `${length} products to choose from.`;
}
