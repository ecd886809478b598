/* The operations of this server, read from its own /openapi.json. */

const doc = await (await fetch("/openapi.json")).json();
const box = document.getElementById("operations");
document.getElementById("about").textContent = doc.info.description;

function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = text;
  made.append(...children);
  return made;
}

function typeOf(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" | ");
  if (schema.enum) return schema.enum.map((v) => JSON.stringify(v)).join(" | ");
  if (schema.type === "array") return `${typeOf(schema.items)}[]`;
  return Array.isArray(schema.type) ? schema.type.join(" | ") : schema.type || "any";
}

function fields(operation) {
  const rows = (operation.parameters || []).map((p) => [p.name, p.in, typeOf(p.schema), p.required]);
  const body = operation.requestBody?.content["application/json"].schema;
  for (const [name, schema] of Object.entries(body?.properties || {})) rows.push([name, "body", typeOf(schema), (body.required || []).includes(name)]);
  if (!rows.length) return element("p", "No parameters.");
  const table = element("table", null, element("tr", null, ...["Field", "In", "Type", "Required"].map((t) => element("th", t))));
  for (const row of rows) table.append(element("tr", null, ...row.map((v) => element("td", v === true ? "yes" : v === false ? "" : v))));
  return table;
}

for (const [path, methods] of Object.entries(doc.paths)) {
  for (const [method, operation] of Object.entries(methods)) {
    if (operation.deprecated) continue;
    const head = element("summary", null, element("b", method.toUpperCase()), element("code", path), element("span", operation.summary));
    const answer = operation.responses["200"] || operation.responses["201"];
    const schema = answer?.content?.["application/json"]?.schema?.properties?.data;
    const item = element("details", null, head,
      element("p", `Socket method: ${operation.operationId} · who: ${operation["x-permission"]}`), fields(operation));
    if (schema) item.append(element("p", `Answer: ${typeOf(schema)}`), element("pre", JSON.stringify(doc.components.schemas[typeOf(schema)] || schema, null, 2)));
    item.dataset.text = `${method} ${path} ${operation.operationId} ${operation.summary}`.toLowerCase();
    box.append(item);
  }
}
for (const [code, words] of Object.entries(doc["x-error-codes"])) document.getElementById("codes").append(element("dt", code), element("dd", words));
document.getElementById("find").addEventListener("input", (event) => {
  for (const item of box.children) item.hidden = !item.dataset.text.includes(event.target.value.toLowerCase());
});
