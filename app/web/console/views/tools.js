// The tools of one agent, each with a form that runs it outside of any call.
import { get, may, post } from "../lib/api.js";
import { Fields, argumentsOf } from "../lib/schema.js";
import { Answer, Badge, html, useAnswer, useState } from "../lib/ui.js";

const NO_MORE = 20_000; // characters of an answer that are shown

function shownOutput(output) {
  try {
    return JSON.stringify(JSON.parse(output), null, 2).slice(0, NO_MORE);
  } catch {
    return output.slice(0, NO_MORE);
  }
}

function Result({ of }) {
  if (of.problem) return html`<p class="trouble" role="alert">${of.problem}</p>`;
  if (of.busy) return html`<p class="quiet" role="status">It runs …</p>`;
  return html`<div role="status"><p><${Badge} kind=${of.error ? "bad" : "good"}>${of.error ? of.error.replaceAll("_", " ") : "worked"}<//> <span class="quiet">after ${of.duration_ms} ms. The model would get:</span>${of.error === "tool_failed" && html` <span class="quiet">The server's log has the cause.</span>`}</p>
    <pre class="sample wide">${shownOutput(of.output)}</pre></div>`;
}

function Tool({ agent, tool }) {
  const [result, setResult] = useState(null);
  const run = async (event) => {
    event.preventDefault();
    if (result?.busy) return;
    const form = new FormData(event.target);
    setResult({ busy: true });
    try {
      const trial = { arguments: argumentsOf(tool.parameters, form) };
      const caller = String(form.get("trial:caller") || "").replaceAll(/[\s()-]/g, "");
      if (caller) trial.caller_number = caller;
      if (form.get("trial:verified")) trial.caller_verified = true;
      setResult(await post(`/agents/${encodeURIComponent(agent)}/tools/${encodeURIComponent(tool.name)}/try`, trial));
    } catch (problem) {
      setResult({ problem: problem.message });
    }
  };
  return html`<details class="tool"><summary><code>${tool.name}</code></summary>
    <p class="quiet">${tool.description}</p>
    ${tool.approval !== "none" && html`<p class="quiet">In a call it waits for the approval of ${tool.approval === "keypad" ? "the caller, by a key" : "an operator"}.</p>`}
    ${may("operator") ? html`<form class="stacked" aria-label=${`Try ${tool.name}`} onSubmit=${run}>
      <${Fields} schema=${tool.parameters} />
      <div class="row"><input name="trial:caller" type="tel" aria-label="Number of the caller" placeholder="caller's number, if it matters" size="26" autocomplete="off" />
        ${may("admin") && html`<label><input name="trial:verified" type="checkbox" /> vouched for by the network</label>`}
        <button aria-disabled=${Boolean(result?.busy)}>Run it</button></div>
      <p class="quiet">It runs for real: what it books or sends is booked or sent.</p></form>
      ${result && html`<${Result} of=${result} />`}`
      : html`<p class="quiet">Trying it takes the scope operator.</p>`}</details>`;
}

export function Tools({ agent }) {
  const tools = useAnswer(() => get(`/agents/${encodeURIComponent(agent)}/tools`), [agent]);
  return html`<${Answer} of=${tools}>${(data) => data.tools.map((tool) => html`<${Tool} key=${tool.name} agent=${agent} tool=${tool} />`)}<//>`;
}
