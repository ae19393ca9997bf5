// What is said of a product and of a list, in words. Pure: no document, no requests.

const DATE = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });
const MOMENT = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });
const AGO = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const PERCENT = new Intl.NumberFormat("en", { style: "percent", maximumSignificantDigits: 2 });
const STRENGTH = new Intl.NumberFormat("en", { minimumSignificantDigits: 3, maximumSignificantDigits: 3 });
const NUMBER = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const COUNT = new Intl.NumberFormat("en");
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

const SOURCES = {
  personal: "their own, by the model",
  own_purchases: "their own purchases, no model is proven",
  global: "what is popular with everybody",
  rhythm: "by their own rhythm, what is due first",
  category: "as its whole category is bought",
  product: "from this product's own orders",
};

export const strength = (value) => STRENGTH.format(value);
export const moment = (text) => MOMENT.format(new Date(text));
export const sourceOf = (source) => SOURCES[source] ?? source;

// "3 hours ago", of a moment as the API writes it.
export function ago(text, now) {
  const seconds = (new Date(text) - now) / 1000;
  const [unit, size] = UNITS.find(([, size]) => Math.abs(seconds) >= size) ?? ["second", 1];
  return AGO.format(Math.round(seconds / size), unit);
}

// Why a product is in a list of Top Buys; names are by product id.
export function because(reason, nameOf) {
  switch (reason?.kind) {
    case "repeat":
      return bought(reason);
    case "similar":
      return `Goes with ${reason.purchases
        .map((one) => `${nameOf(one.product_id)} (${PERCENT.format(one.weight)})`)
        .join(", ")}`;
    case "popular":
      return "Popular now";
    case "pinned":
      return "Pinned by the shop";
    default:
      return "No reason is published";
  }
}

// When a product was bought and is due again.
export function repeat(product, now) {
  if (!product.due_at) return bought(product);
  const due = new Date(product.due_at) <= now ? "due since" : "due on";
  return `${bought(product)}; ${due} ${date(product.due_at)}`;
}

// The counts behind a pair of products.
export function measures(evidence) {
  if (!evidence) return "No evidence is published";
  const { orders, confidence, lift } = evidence;
  return (
    `In ${COUNT.format(orders)} ${orders === 1 ? "order" : "orders"} together, ` +
    `${PERCENT.format(confidence)} of those with it; ${NUMBER.format(lift)} times what chance would bring`
  );
}

function bought({ purchases, last_purchased_at: last }) {
  if (purchases === 1) return `Bought once, on ${date(last)}`;
  return `Bought ${COUNT.format(purchases)} times, last on ${date(last)}`;
}

const date = (text) => DATE.format(new Date(text));
