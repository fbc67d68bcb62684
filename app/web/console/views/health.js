// The server at a glance, with what to do about what is not well.
import { get, may, post } from "../lib/api.js";
import { Answer, Badge, Page, Trouble, html, useAnswer, useState, usd, when } from "../lib/ui.js";

const REMEDIES = {
  voice_model_refuses: "The voice model refuses us: check OPENAI_API_KEY, the quota and the model's name, then run trunkline doctor.",
  voice_model_unavailable: "The last call found no voice model: each call tries again. The doctor below looks for the cause; the provider's status page may know of it.",
  offline_recognizer_down: "No process of the offline engine recognizes speech: it is started again by itself. If this lasts, restart the server.",
  offline_synthesizer_down: "The offline engine's speech was replaced after it hung. If this lasts, restart the server.",
  call_history_loses_events: "The history has lost events: its database does not answer and the disk for them is full.",
  call_history_unavailable: "The history's database does not answer: events are kept on disk meanwhile. Check the database and its disk.",
  bus: "Redis does not answer: calls of this server go on, other servers are not heard.",
  draining: "The server is stopping: calls may finish, new ones go elsewhere.",
  at_capacity: "All lines are busy: raise limits.max_calls if the machine has room, or run more workers.",
  overloaded: "It is late with the sound of its calls (limits.max_lag_ms): lower limits.max_calls, or start another server.",
  over_budget: "Today's budget is spent: raise budget.per_day_usd, or wait for tomorrow.",
};

function Troubles({ status }) {
  const found = [...status.not_ready, ...status.degraded];
  if (!found.length) return html`<p><${Badge} kind="good">well<//> The next call would be answered, and nothing is degraded.</p>`;
  return html`<ul>${found.map((code) => html`<li key=${code}><${Badge} kind="bad">${code.replaceAll("_", " ")}<//> ${REMEDIES[code] || "docs/operations.md says what it means."}</li>`)}</ul>`;
}

const VERDICTS = { good: ["good", "right"], warning: ["warn", "note"], wrong: ["bad", "wrong"], unchecked: ["", "not checked"] };
const WORST_FIRST = ["wrong", "warning", "unchecked", "good"];

function Finding({ of }) {
  const [kind, word] = VERDICTS[of.verdict] || ["", of.verdict];
  return html`<li class="finding"><${Badge} kind=${kind}>${word}<//> <span><strong>${of.subject}</strong>: ${of.text}${of.remedy && html`<br /><span class="quiet">What to do: ${of.remedy}</span>`}</span></li>`;
}

function Doctor() {
  const [state, setState] = useState({ data: null, error: null, busy: false });
  const look = async () => {
    if (state.busy) return;
    setState((old) => ({ ...old, busy: true, error: null }));
    try {
      setState({ data: await post("/doctor"), error: null, busy: false });
    } catch (error) {
      setState((old) => ({ ...old, error, busy: false }));
    }
  };
  const { data, error, busy } = state;
  const rank = (one) => WORST_FIRST.indexOf(one.verdict);
  return html`<section class="panel" aria-label="Doctor"><h2>Doctor</h2>
    <p class="quiet">Keys, numbers, the public address, the model and this machine, looked at from this server, as <code>trunkline doctor</code> does. It calls nobody; the model answers one line.</p>
    ${may("operator") ? html`<p><button class="primary" aria-disabled=${busy} onClick=${look}>${busy ? "Checking …" : data ? "Check again" : "Run the checks"}</button></p>` : html`<p class="quiet">It takes the scope operator.</p>`}
    ${error && html`<${Trouble} error=${error} />`}
    ${data && html`<div role="status"><p>${data.verdict === "wrong" ? html`<span class="bad">Something is wrong.</span>` : data.results.some((one) => one.verdict === "unchecked" && one.remedy) ? "Nothing wrong was found in what could be checked." : "Nothing wrong was found."} <span class="quiet">${when(data.at)}</span></p>
      <ul class="plain">${[...data.results].sort((one, other) => rank(one) - rank(other)).map((one) => html`<${Finding} of=${one} />`)}</ul></div>`}</section>`;
}

function Processes({ of }) {
  if (of.length < 2) return null;
  return html`<section class="panel scroll" tabindex="0" aria-label="Processes"><h2>Processes</h2><table><thead><tr><th>Process</th><th>Calls</th><th>State</th><th>Configuration</th></tr></thead>
    <tbody>${of.map((one) => html`<tr key=${one.name}><td>${one.name}</td><td class="whole">${one.live} of ${one.capacity}</td>
      <td>${[...one.not_ready, ...one.degraded].map((code) => code.replaceAll("_", " ")).join(", ") || "well"}</td><td>${one.configuration}</td></tr>`)}</tbody></table></section>`;
}

function Deliveries() {
  const failed = useAnswer(() => get("/webhooks/deliveries?state=failed&limit=20"), []);
  if (failed.error || !failed.data?.deliveries.length) return null;
  return html`<section class="panel"><h2>Messages that were not delivered</h2><ul>
    ${failed.data.deliveries.map((one) => html`<li key=${one.delivery_id}>${one.type || one.event || "message"} <span class="quiet">${one.error || ""}</span></li>`)}</ul></section>`;
}

const EVENTS = [["stored", "events kept since the start:"], ["waiting", "waiting:"], ["spooled", "put on disk meanwhile:"], ["dropped", "lost:"]];

function Facts({ status }) {
  const { budget } = status;
  const facts = [
    ["Version", status.version],
    ["Carrier", status.mode === "live" ? "Twilio" : "none: simulated calls from this machine only"],
    ["Voice", status.voice === "offline" ? "the offline engine" : status.model],
    ["Calls now", `${status.live} of ${status.capacity}${status.processes.length > 1 ? " in this process" : ""}`],
    ["Budget today", budget.per_day_usd ? `${usd(budget.spent_usd)} of ${usd(budget.per_day_usd)}` : `${usd(budget.spent_usd)}, without a limit`],
    ["History", status.history ? EVENTS.map(([name, word]) => `${word} ${(status.history.events[name] || 0).toLocaleString()}`).join(", ") : "none is kept: store is off"],
    ["Configuration", status.configuration],
  ];
  return html`<section class="panel"><h2>Facts</h2><dl class="facts">${facts.map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl></section>`;
}

export default function Health() {
  const status = useAnswer(() => get("/status"), []);
  return html`<${Page} title="Health" aside=${html`<button onClick=${status.again}>Refresh</button>`}>
    <${Answer} of=${status}>${(data) => html`
      <section class="panel"><h2>Now</h2><${Troubles} status=${data} /></section>
      <${Doctor} />
      <${Processes} of=${data.processes} />
      <div class="two">
        <section class="panel"><h2>Notices about the configuration</h2>${data.notices.length
          ? html`<ul>${data.notices.map((notice) => html`<li>${notice}</li>`)}</ul>`
          : html`<p class="quiet">None.</p>`}
        </section>
        <${Facts} status=${data} />
      </div>
      ${may("viewer") && html`<${Deliveries} />`}`}<//>
  <//>`;
}
