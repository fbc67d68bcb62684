// The server at a glance, with what to do about what is not well.
import { get, may } from "../lib/api.js";
import { Answer, Badge, Page, html, useAnswer, usd } from "../lib/ui.js";

const REMEDIES = {
  voice_model_refuses: "The voice model refuses us: check OPENAI_API_KEY, the quota and the model's name, then run trunkline doctor.",
  offline_synthesizer_down: "The offline engine's speech was replaced after it hung. If this lasts, restart the server.",
  call_history_loses_events: "The history has lost events: its database does not answer and the disk for them is full.",
  call_history_unavailable: "The history's database does not answer: events are kept on disk meanwhile. Check the database and its disk.",
  bus: "Redis does not answer: calls of this server go on, other servers are not heard.",
  draining: "The server is stopping: calls may finish, new ones go elsewhere.",
  at_capacity: "All lines are busy: raise limits.max_calls if the machine has room, or run more workers.",
  over_budget: "Today's budget is spent: raise budget.per_day_usd, or wait for tomorrow.",
};

function Troubles({ status }) {
  const found = [...status.not_ready, ...status.degraded];
  if (!found.length) return html`<p><${Badge} kind="good">well<//> The next call would be answered, and nothing is degraded.</p>`;
  return html`<ul>${found.map((code) => html`<li key=${code}><${Badge} kind="bad">${code.replaceAll("_", " ")}<//> ${REMEDIES[code] || "docs/operations.md says what it means."}</li>`)}</ul>`;
}

function Deliveries() {
  const failed = useAnswer(() => get("/webhooks/deliveries?state=failed&limit=20"), []);
  if (failed.error || !failed.data?.deliveries.length) return null;
  return html`<section class="panel"><h2>Messages that were not delivered</h2><ul>
    ${failed.data.deliveries.map((one) => html`<li key=${one.delivery_id}>${one.type || one.event || "message"} <span class="quiet">${one.error || ""}</span></li>`)}</ul></section>`;
}

function Facts({ status }) {
  const { budget } = status;
  const facts = [
    ["Version", status.version],
    ["Carrier", status.mode === "live" ? "Twilio" : "none: simulated calls from this machine only"],
    ["Voice", status.voice === "offline" ? "the offline engine" : status.model],
    ["Calls now", `${status.live} of ${status.capacity} in this process`],
    ["Budget today", budget.per_day_usd ? `${usd(budget.spent_usd)} of ${usd(budget.per_day_usd)}` : `${usd(budget.spent_usd)}, without a limit`],
    ["History", status.history ? Object.entries(status.history.events).map(([name, n]) => `${name}: ${n}`).join(", ") : "none is kept: store is off"],
    ["Configuration", status.configuration],
  ];
  return html`<section class="panel"><h2>Facts</h2><dl class="facts">${facts.map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl></section>`;
}

export default function Health() {
  const status = useAnswer(() => get("/status"), []);
  return html`<${Page} title="Health" aside=${html`<button onClick=${status.again}>Look again</button>`}>
    <${Answer} of=${status}>${(data) => html`
      <section class="panel"><h2>Now</h2><${Troubles} status=${data} /></section>
      <div class="two">
        <section class="panel"><h2>Notices about the configuration</h2>${data.notices.length
          ? html`<ul>${data.notices.map((notice) => html`<li>${notice}</li>`)}</ul>`
          : html`<p class="quiet">None.</p>`}
          <p class="quiet">Run <code>trunkline doctor</code> on the server: it checks keys, numbers, the public address and the model from outside.</p></section>
        <${Facts} status=${data} />
      </div>
      ${may("viewer") && html`<${Deliveries} />`}`}<//>
  <//>`;
}
