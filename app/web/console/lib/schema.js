// A form for the arguments of a tool, made of its JSON schema. A value that has no field of its own
// shape, such as a list or an object, is written as JSON.
import { html } from "./ui.js";

const LONG_TEXT = 200;

const typeOf = (schema) => [schema.type || schema.anyOf?.map((one) => one.type)].flat().find((type) => type !== "null");

function Field({ name, schema, required }) {
  const label = html`<span>${name}${required && html` <span class="quiet">(required)</span>`}</span>`;
  const about = schema.description && html`<small class="quiet">${schema.description}</small>`;
  const given = { name, required, "aria-label": name };
  const shown = schema.default === undefined ? "" : String(schema.default);
  const type = typeOf(schema);
  if (schema.enum || type === "boolean") {
    const options = schema.enum || [true, false];
    return html`<label>${label}<select ...${given}>
      <option value="">${shown ? `not given (${shown})` : ""}</option>${options.map((one) => html`<option value=${JSON.stringify(one)}>${String(one)}</option>`)}</select>${about}</label>`;
  }
  if (type === "integer" || type === "number") {
    return html`<label>${label}<input ...${given} type="number" step=${type === "integer" ? 1 : "any"} min=${schema.minimum} max=${schema.maximum} placeholder=${shown} />${about}</label>`;
  }
  if (type === "string" && !(schema.maxLength > LONG_TEXT)) {
    return html`<label>${label}<input ...${given} maxlength=${schema.maxLength} placeholder=${shown || schema.format || ""} autocomplete="off" />${about}</label>`;
  }
  const placeholder = type === "string" ? shown : type === "array" ? "[…] as JSON" : "{…} as JSON";
  return html`<label>${label}<textarea ...${given} placeholder=${placeholder}></textarea>${about}</label>`;
}

export function Fields({ schema }) {
  const required = schema.required || [];
  const fields = Object.entries(schema.properties || {});
  if (!fields.length) return html`<p class="quiet">It takes no arguments.</p>`;
  return html`<div class="fields">${fields.map(([name, one]) => html`<${Field} key=${name} name=${name} schema=${one} required=${required.includes(name)} />`)}</div>`;
}

function parsed(name, text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`${name} is not JSON`);
  }
}

// The arguments that a form holds. What was left empty is not given.
export function argumentsOf(schema, form) {
  const found = {};
  for (const [name, one] of Object.entries(schema.properties || {})) {
    const text = String(form.get(name) ?? "");
    if (text === "") continue;
    const type = typeOf(one);
    const plain = type === "string" && !one.enum;
    found[name] = plain ? text : parsed(name, text);
  }
  return found;
}
