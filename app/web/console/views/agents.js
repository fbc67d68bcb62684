// What each number and agent does, as it is in force, and what a reload would change.
import { get, may, post } from "../lib/api.js";
import { Act, Answer, Badge, Empty, Page, html, useAnswer } from "../lib/ui.js";

function Numbers({ numbers }) {
  if (!numbers.length) return html`<${Empty} title="No numbers are configured">Every call goes to the first agent. List yours under <code>numbers</code> in <code>config.yaml</code>.<//>`;
  return html`<section class="panel scroll" tabindex="0" aria-label="Numbers"><h2>Numbers</h2><table><thead><tr><th>Number</th><th>Agent</th><th>Model</th><th>If nobody can answer</th><th class="number">Share</th></tr></thead>
    <tbody>${numbers.map((one) => html`<tr key=${one.number}><td>${one.number}</td><td>${one.agent}</td><td>${one.model}</td><td>${one.fallback || "busy message"}</td><td class="number">${one.percent} %</td></tr>`)}</tbody></table></section>`;
}

function Agent({ agent }) {
  const list = (name, items) => items.length > 0 && html`<dt>${name}</dt><dd>${items.map((one) => html`<${Badge}>${one}<//> `)}</dd>`;
  return html`<section class="panel"><h2>${agent.name}</h2>
    <p class="quiet">${agent.description || "No description"}</p>
    <dl class="facts">${agent.voice && html`<dt>Voice</dt><dd>${agent.voice}</dd>`}${list("Tools", agent.tools)}${list("Hands over to", agent.handoffs)}${list("Guardrails", agent.guardrails)}</dl></section>`;
}

function Changes() {
  const changes = useAnswer(() => get("/settings/changes"), []);
  const reload = async () => {
    await post("/reload");
    changes.again();
  };
  return html`<section class="panel"><h2>The file on disk</h2><${Answer} of=${changes}>${(data) => data.problem && !data.diff.length
    ? html`<p class="bad">It cannot be put in force: ${data.problem}</p>`
    : data.diff.length
      ? html`<pre>${data.diff.map((line) => (line.startsWith("+") ? html`<ins>${line}</ins>\n` : line.startsWith("-") ? html`<del class="line">${line}</del>\n` : `${line}\n`))}</pre>
          <p>${data.problem ? html`<span class="warn">${data.problem}</span>` : html`<${Act} label="Put it in force" kind="primary" act=${reload} />`}</p>`
      : html`<p class="quiet">It says what is in force (version ${data.version}).</p>`}<//></section>`;
}

export default function Agents() {
  const numbers = useAnswer(() => get("/numbers"), []);
  const agents = useAnswer(() => get("/agents"), []);
  return html`<${Page} title="Agents and numbers">
    <${Answer} of=${numbers}>${(data) => html`<${Numbers} numbers=${data.numbers} />`}<//>
    <div class="grid"><${Answer} of=${agents}>${(data) => data.agents.map((agent) => html`<${Agent} key=${agent.name} agent=${agent} />`)}<//></div>
    ${may("admin") && html`<${Changes} />`}
  <//>`;
}
