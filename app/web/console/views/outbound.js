// Calls that the server places: one by a form, many by campaigns, and whom it never calls.
import { del, get, may, post } from "../lib/api.js";
import { usePlaced } from "../lib/placed.js";
import { Act, Answer, Badge, Empty, Name, Page, Trouble, html, useAnswer, useState, when } from "../lib/ui.js";
import { Campaigns } from "./campaigns.js";

const STATES = { waiting: "waits its turn", sent: "being dialed", placed: "dialed", answered: "talking" };
const KINDS = { answered: "good", busy: "warn", no_answer: "warn", canceled: "warn" };

function Variables({ of }) {
  if (!of.length) return null;
  return html`<fieldset><legend>Variables of the agent</legend><div class="fields">${of.map((name) => html`
    <label key=${name}>${name}<input name=${`var.${name}`} maxlength="2000" placeholder="as configured" /></label>`)}</div></fieldset>`;
}

function Said({ of }) {
  if (!of) return null;
  if (of.error) return html`<p class="trouble" role="alert">${of.error.message}</p>`;
  return html`<p role="status">Calling ${of.number}: <a href=${`#/call/${of.call_id}`}>see the call</a></p>`;
}

function Place({ agents, onPlaced }) {
  const [agent, setAgent] = useState(agents[0]?.name || "");
  const [state, setState] = useState({ busy: false, said: null });
  const variables = agents.find((one) => one.name === agent)?.variables || [];
  const place = async (event) => {
    event.preventDefault();
    if (state.busy) return;
    const given = new FormData(event.target);
    const set = variables.map((name) => [name, given.get(`var.${name}`)]).filter(([, value]) => value);
    const order = { to: given.get("to").trim(), agent, purpose: given.get("purpose"), variables: Object.fromEntries(set) };
    setState({ busy: true, said: null });
    try {
      setState({ busy: false, said: await post("/calls", order) });
      onPlaced();
    } catch (error) {
      setState({ busy: false, said: { error } });
    }
  };
  return html`<section class="panel" aria-label="Place a call"><h2>Place a call</h2>
    <form class="stacked" onSubmit=${place}>
      <div class="fields">
        <label>Number<input name="to" type="tel" required maxlength="64" placeholder="+14155550123" autocomplete="off" /></label>
        <label>Agent<select value=${agent} onChange=${(event) => setAgent(event.target.value)}>${agents.map((one) => html`<option value=${one.name}>${one.name}</option>`)}</select></label>
        <label>Purpose<select name="purpose"><option value="service">service</option><option value="marketing">marketing, needs consent</option></select></label>
      </div>
      <${Variables} key=${agent} of=${variables} />
      <div class="row"><button class="primary" aria-disabled=${state.busy}>Call</button></div>
    </form>
    <${Said} of=${state.said} /></section>`;
}

function Row({ call, rings }) {
  const over = call.state === "ended";
  const kind = over ? KINDS[call.outcome] || "bad" : "live";
  const state = over ? call.outcome.replaceAll("_", " ") : rings && call.state !== "answered" ? "rings" : STATES[call.state] || call.state;
  return html`<tr>
    <td><a href=${`#/call/${call.call_id}`}>${when(call.created_at)}</a></td><td class="whole">${call.number}</td><td><${Name}>${call.agent}<//></td>
    <td><${Badge} kind=${kind}>${state}<//></td>
    <td class="quiet">${over && call.reason && html`<${Name}>${call.reason}<//>`}</td>
    <td class="quiet">${Object.entries(call.variables).map(([name, value]) => html`<${Name}>${name}: ${value}<//> `)}</td>
  </tr>`;
}

function Calls({ calls, ringing }) {
  const table = (name, rows) => html`<section class="panel scroll" tabindex="0" aria-label=${name}><h2>${name}</h2>
    <table class="stack"><thead><tr><th>Placed</th><th>Number</th><th>Agent</th><th>State</th><th>Why</th><th>Variables</th></tr></thead>
      <tbody>${rows.map((call) => html`<${Row} key=${call.call_id} call=${call} rings=${ringing.has(call.call_id)} />`)}</tbody></table></section>`;
  const open = calls.filter((call) => call.state !== "ended");
  const over = calls.filter((call) => call.state === "ended");
  return html`
    ${open.length > 0 && table("In progress", open)}
    ${over.length > 0 && table("Placed before", over)}
    ${calls.length === 0 && html`<${Empty} title="No call was placed yet">${may("operator")
      ? html`Fill in the form above, or run <code>trunkline call +14155550123 --agent NAME</code> in a terminal.`
      : "Placing one takes the scope operator."}<//>`}`;
}

function Listed({ one, again }) {
  const remove = async () => {
    await del(`/do_not_call/${encodeURIComponent(one.number)}`);
    again();
  };
  return html`<tr><td class="whole">${one.number}</td><td><${Name}>${one.reason}<//></td><td class="quiet whole">${when(one.at)}</td>
    ${may("admin") && html`<td><${Act} label="Remove" sure="Really remove?" kind="small" act=${remove} /></td>`}</tr>`;
}

function DoNotCall() {
  const [limit, setLimit] = useState(100);
  const [error, setError] = useState(null);
  const listed = useAnswer(() => get(`/do_not_call?limit=${limit}`), [limit]);
  const add = async (event) => {
    event.preventDefault();
    const form = event.target;
    const given = new FormData(form);
    try {
      await post("/do_not_call", { number: given.get("number").replaceAll(/[\s()-]/g, ""), reason: given.get("reason") });
      setError(null);
      form.reset();
      listed.again();
    } catch (problem) {
      setError(problem);
    }
  };
  if (listed.error?.code === "no_store") return null;
  return html`<section class="panel" aria-label="Do not call"><h2>Do not call</h2>
    ${may("operator") && html`<form class="row" onSubmit=${add}>
      <input name="number" type="tel" required maxlength="64" aria-label="Number never to call" placeholder="+14155550123" size="14" autocomplete="off" />
      <input class="wide" name="reason" maxlength="500" aria-label="Reason" placeholder="why" autocomplete="off" />
      <button>Never call</button></form>`}
    ${error && html`<p class="trouble" role="alert">${error.message}</p>`}
    <${Answer} of=${listed}>${({ numbers }) => numbers.length
      ? html`<div class="scroll" tabindex="0" role="group" aria-label="Numbers that are never called"><table><tbody>${numbers.map((one) => html`<${Listed} key=${one.number} one=${one} again=${listed.again} />`)}</tbody></table></div>
          ${numbers.length === limit && limit < 1000 && html`<p><button onClick=${() => setLimit(1000)}>More</button></p>`}`
      : html`<p class="quiet">Nobody is listed. A person who tells the agent “do not call me again” is added without your doing.</p>`}<//></section>`;
}

const Off = () => html`<${Empty} title="This server places no calls">
  <p>Set <code>outbound.enabled</code> to <code>true</code> in <code>config.yaml</code>, and restart the server:</p>
  <pre class="sample">outbound:\n  enabled: true</pre>
  <p>It needs a phone account and a number of yours to call from. See calls that come in <a href="#/wall">live</a>.</p><//>`;

const NoStore = () => html`<${Empty} title="Placed calls need the history">
  Each attempt is written down before anything rings: set <code>store</code> in <code>config.yaml</code>, and restart the server.<//>`;

function Enabled({ placed, ready }) {
  const agents = useAnswer(() => get("/agents"), []);
  return html`
    ${ready && html`<p class="trouble" role="status">No call can be placed now. ${ready.message}</p>`}
    <div class="two">
      ${may("operator") && html`<${Answer} of=${agents}>${(data) => html`<${Place} agents=${data.agents} onPlaced=${placed.again} />`}<//>`}
      <${DoNotCall} />
    </div>
    <${Calls} calls=${placed.calls} ringing=${placed.ringing} />
    ${agents.data && html`<${Campaigns} agents=${agents.data.agents} />`}`;
}

export default function Outbound() {
  const placed = usePlaced();
  const code = placed.notReady?.code;
  if (placed.calls === null) {
    return html`<${Page} title="Outbound">${placed.error
      ? html`<${Trouble} error=${placed.error} again=${placed.again} />`
      : html`<p class="quiet" role="status">Loading …</p>`}<//>`;
  }
  return html`<${Page} title="Outbound">
    ${placed.error && html`<${Trouble} error=${placed.error} again=${placed.again} />`}
    ${code === "no_store"
      ? html`<${NoStore} />`
      : code === "outbound_not_enabled"
        ? html`<${Off} />${placed.calls.length > 0 && html`<${Calls} calls=${placed.calls} ringing=${placed.ringing} />`}<${DoNotCall} />`
        : html`<${Enabled} placed=${placed} ready=${placed.notReady} />`}
  <//>`;
}
