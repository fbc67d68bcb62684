// What each number and agent does, as it is in force, what a reload would change, and tools to try.
import { get, may, post } from "../lib/api.js";
import { Act, Answer, Badge, Empty, Name, Page, html, useAnswer } from "../lib/ui.js";
import { Tools } from "./tools.js";

function Hours({ of }) {
  if (!of.hours) return "always";
  return html`<${Badge} kind=${of.open_now ? "good" : "warn"}>${of.open_now ? "open" : "closed"}<//> ${of.hours}
    ${of.when_closed && html`<br /><span class="quiet">else: ${of.when_closed}</span>`}`;
}

function Numbers({ numbers }) {
  if (!numbers.length) return html`<${Empty} title="No numbers are configured">Every call goes to the first agent. List yours under <code>numbers</code> in <code>config.yaml</code>.<//>`;
  return html`<section class="panel scroll" tabindex="0" aria-label="Numbers"><h2>Numbers</h2><table class="stack"><thead><tr><th>Number</th><th>Agent</th><th>Says first</th><th>Open</th><th>Model</th><th>Recorded</th><th>If nobody can answer</th><th class="number">Share</th></tr></thead>
    <tbody>${numbers.map((one) => html`<tr key=${one.number}><td class="whole strong">${one.number}</td><td data-label="Agent"><${Name}>${one.agent}<//></td>
      <td data-label="Says first">${one.greeting ? `“${one.greeting}”` : html`<span class="quiet">as the agent is told</span>`}</td><td data-label="Open"><${Hours} of=${one} /></td>
      <td data-label="Model">${one.model}</td><td data-label="Recorded">${one.recorded ? "recorded" : "not recorded"}</td><td data-label="If nobody can answer">${one.fallback ? `put through to ${one.fallback}` : "hears a busy message"}</td><td class="number" data-label="Share">${one.percent} %</td></tr>`)}</tbody></table></section>`;
}

function Agent({ agent }) {
  const list = (name, items) => items.length > 0 && html`<dt>${name}</dt><dd class="badges">${items.map((one) => html`<${Badge}>${one}<//> `)}</dd>`;
  return html`<section class="panel" aria-label=${`Agent ${agent.name}`}><h2>${agent.name}</h2>
    <p class="quiet">${agent.description || "No description"}</p>
    <dl class="facts">${agent.voice && html`<dt>Voice</dt><dd>${agent.voice}</dd>`}${list("Tools", agent.tools)}${list("Hands over to", agent.handoffs)}${list("Guardrails", agent.guardrails)}${list("Variables", agent.variables)}</dl>
    <${Tools} agent=${agent.name} /></section>`;
}

const KINDS = { "+": "ins", "-": "del" }; // of a line of the difference

function Changes() {
  const changes = useAnswer(() => get("/settings/changes"), []);
  const reload = async () => {
    await post("/reload");
    changes.again();
  };
  return html`<section class="panel" aria-label="The file on disk"><h2>The file on disk</h2><${Answer} of=${changes}>${(data) => data.problem && !data.diff.length
    ? html`<p class="bad">It cannot be put in force: ${data.problem}</p>`
    : data.diff.length
      ? html`<pre>${data.diff.map((line) => html`<${KINDS[line[0]] || "span"} class="line">${line}<//>`)}</pre>
          <p>${data.problem ? html`<span class="warn">${data.problem}</span>` : html`<${Act} label="Put it in force" kind="primary" act=${reload} />`}</p>`
      : html`<p class="quiet">It says what is in force (version ${data.version}).</p>`}<//></section>`;
}

function InForce() {
  const settings = useAnswer(() => get("/settings"), []);
  return html`<section class="panel" aria-label="In force"><h2>In force</h2><${Answer} of=${settings}>${(data) => html`
    <details><summary>All settings, with what agents are told; secrets are masked</summary><pre>${data.yaml}</pre></details>`}<//></section>`;
}

export default function Agents() {
  const numbers = useAnswer(() => get("/numbers"), []);
  const agents = useAnswer(() => get("/agents"), []);
  return html`<${Page} title="Agents and numbers">
    <${Answer} of=${numbers}>${(data) => html`<${Numbers} numbers=${data.numbers} />`}<//>
    <div class="grid wide"><${Answer} of=${agents}>${(data) => data.agents.map((agent) => html`<${Agent} key=${agent.name} agent=${agent} />`)}<//></div>
    ${may("admin") && html`<${InForce} /><${Changes} />`}
  <//>`;
}
