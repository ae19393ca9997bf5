// Renders /schema/openapi.json: every operation with its parameters, its answers and a form to try
// it. Covers what this API uses of OpenAPI 3.1: GET, path and query parameters, JSON answers.

import { credentials } from "./explorer/api.js";

const openapi = await (await fetch("/schema/openapi.json")).json();
const main = document.getElementById("reference");
main.replaceChildren(...reference());

function reference() {
  const operations = Object.entries(openapi.paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, operation]) => ({ path, method, operation })));
  return [
    element("h1", {}, openapi.info.title),
    element("p", { className: "quiet" }, openapi.info.description),
    element("p", { className: "quiet" },
      `Version ${openapi.info.version}. `,
      link("/", "Start page"), ", ", link("/schema/openapi.json", "OpenAPI document"), "."),
    ...(openapi.tags ?? []).flatMap(tag => [
      element("h2", {}, tag.name),
      element("p", { className: "quiet" }, tag.description),
      ...operations.filter(({ operation }) => operation.tags?.includes(tag.name)).map(panel),
    ]),
  ];
}

function panel({ path, method, operation }) {
  return element("section", { className: "panel" },
    element("h3", {},
      element("span", { className: "method" }, method.toUpperCase()), " ",
      element("code", {}, path)),
    element("p", {}, operation.description ?? operation.summary),
    form(path, operation.parameters ?? []),
    ...Object.entries(operation.responses).map(answer));
}

function form(path, parameters) {
  const output = element("div", { ariaLive: "polite" });
  const result = element("form", {},
    parameters.length ? parameterTable(parameters) : "",
    element("button", {}, "Try it"),
    output);
  result.addEventListener("submit", async event => {
    event.preventDefault();
    const url = address(path, parameters, new FormData(result));
    try {
      const response = await fetch(url, { headers: credentials() });
      output.replaceChildren(
        element("p", {}, element("strong", {}, `${response.status} `), link(url, url)),
        element("pre", {}, readable(await response.text())));
    } catch (error) {
      output.replaceChildren(element("p", {}, `No answer: ${error.message}`));
    }
  });
  return result;
}

function parameterTable(parameters) {
  return element("div", { className: "scroll" }, element("table", {},
    element("thead", {}, element("tr", {},
      ...["Parameter", "Value", "Meaning"].map(name => element("th", { scope: "col" }, name)))),
    element("tbody", {}, ...parameters.map(parameter => element("tr", {},
      element("th", { scope: "row" }, element("code", {}, parameter.name)),
      element("td", {}, element("input", {
        name: parameter.name,
        ariaLabel: parameter.name,
        required: Boolean(parameter.required),
        value: parameter.required ? firstExample(parameter) : "",
        placeholder: String(parameter.schema.default ?? ""),
      })),
      element("td", { className: "quiet" },
        `${parameter.description ?? ""} ${bounds(parameter)}`,
        isList(parameter) ? " Separate several by spaces." : ""))))));
}

function answer([status, response]) {
  const [media, content] = Object.entries(response.content ?? {})[0] ?? [];
  const examples = Object.values(content?.examples ?? {});
  const schema = content && resolved(content.schema);
  return element("details", {},
    element("summary", {}, element("strong", {}, status), ` ${response.description}`),
    media ? element("p", { className: "quiet" }, media) : "",
    schema?.properties ? fieldTable(schema) : "",
    ...examples.map(({ value }) => element("pre", {}, JSON.stringify(value, null, 2))));
}

function fieldTable(schema) {
  return element("div", { className: "scroll" }, element("table", {},
    ...Object.entries(schema.properties).map(([name, field]) => element("tr", {},
      element("th", { scope: "row" }, element("code", {}, name)),
      element("td", {}, typeName(field)),
      element("td", { className: "quiet" }, field.description ?? "")))));
}

function typeName(schema) {
  if (schema.$ref) return typeName(resolved(schema));
  if (schema.enum) return schema.enum.map(value => JSON.stringify(value)).join(" or ");
  if (schema.oneOf ?? schema.anyOf) return (schema.oneOf ?? schema.anyOf).map(typeName).join(" or ");
  if (schema.type === "array") {
    const item = resolved(schema.items);
    return item.properties ? `list of {${Object.keys(item.properties).join(", ")}}` : `list of ${typeName(item)}`;
  }
  return schema.format ?? [schema.type].flat().join(" or ");
}

function address(path, parameters, values) {
  const query = new URLSearchParams();
  for (const parameter of parameters) {
    const value = values.get(parameter.name);
    if (parameter.in === "path") {
      path = path.replace(`{${parameter.name}}`, encodeURIComponent(value));
    } else if (value !== "") {
      for (const item of isList(parameter) ? value.trim().split(/\s+/) : [value]) {
        query.append(parameter.name, item);
      }
    }
  }
  return query.size ? `${path}?${query}` : path;
}

function isList({ schema }) {
  return [schema, ...(schema.oneOf ?? schema.anyOf ?? [])].some(({ type }) => type === "array");
}

function bounds({ schema: { minimum, maximum, default: standard } }) {
  const range = minimum === undefined ? "" : `${minimum} to ${maximum}.`;
  return standard === undefined || standard === null ? range : `${range} Default ${standard}.`;
}

function firstExample(parameter) {
  return [Object.values(parameter.examples ?? {})[0]?.value ?? ""].flat().join(" ");
}

function resolved(schema) {
  return schema?.$ref
    ? schema.$ref.slice(2).split("/").reduce((node, name) => node[name], openapi)
    : schema;
}

function readable(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function link(href, text) {
  return element("a", { href }, text);
}

function element(name, properties, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children.filter(child => child !== "" && child !== undefined));
  return node;
}
