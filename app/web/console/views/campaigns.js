// Campaigns: how far each is, contacts from a file, and what an operator has them do.
import { may, post, postFile } from "../lib/api.js";
import { usePolled } from "../lib/placed.js";
import { Act, Badge, Empty, Trouble, html, useState, when } from "../lib/ui.js";

const STATES = ["waiting", "dialing", "done", "refused"];
const KINDS = { running: "live", tripped: "bad", paused: "warn", done: "good" };
const SAMPLE = "number,name\n+14155550123,Ms. Jones";

const ENCODINGS = ["cp1252", "cp1250", "cp1251", "iso8859-15", "mac-roman", "shift_jis", "gb18030"];

// Sends the contacts of a file, and says how many were new.
async function upload(campaignId, file, encoding) {
  const { given, added, repeated } = await postFile(`/campaigns/${campaignId}/contacts.csv?${new URLSearchParams({ encoding })}`, file);
  return `${added} added${given > added ? `, ${given - added} were there` : ""}${repeated ? `, lines that repeat a number: ${repeated}` : ""}`;
}

const Encoding = (given) => html`<select name="encoding" ...${given}><option value="">Unicode</option>${ENCODINGS.map((one) => html`<option value=${one}>${one}</option>`)}</select>`;

function Funnel({ counts }) {
  const all = STATES.reduce((sum, state) => sum + (counts[state] || 0), 0);
  if (!all) return html`<p class="quiet">No contacts yet. Add a CSV with a column <code>number</code> and one for each variable of the agent.</p>`;
  const outcomes = Object.entries(counts).filter(([name]) => name.startsWith("outcome."));
  let x = 0;
  const told = STATES.map((state) => `${counts[state] || 0} ${state}`).join(", ");
  return html`<svg class="funnel" viewBox="0 0 1000 16" preserveAspectRatio="none" role="img" aria-label=${`${all} contacts: ${told}`}>
      ${STATES.map((state) => {
        const wide = ((counts[state] || 0) / all) * 1000;
        x += wide;
        return html`<rect class=${`of-${state}`} x=${x - wide} y="0" width=${wide} height="16"><title>${state}: ${counts[state] || 0}</title></rect>`;
      })}</svg>
    <div class="legend"><span>${all} contacts</span>${STATES.filter((state) => counts[state]).map((state) => html`
      <span key=${state}><svg viewBox="0 0 10 10" aria-hidden="true"><rect class=${`of-${state}`} width="10" height="10" /></svg>${counts[state]} ${state}</span>`)}</div>
    ${outcomes.length > 0 && html`<p class="quiet outcomes">Last outcomes: ${outcomes.map(([name, count]) => `${name.slice(8).replaceAll("_", " ")} ${count}`).join(", ")}</p>`}`;
}

function AddContacts({ campaign, again }) {
  const [said, setSaid] = useState(null);
  const [encoding, setEncoding] = useState("");
  const chosen = async (event) => {
    const input = event.target;
    const [file] = input.files;
    if (!file) return;
    setSaid({ text: "Adding …" });
    try {
      setSaid({ text: await upload(campaign.campaign_id, file, encoding) });
    } catch (error) {
      setSaid({ error });
    }
    input.value = "";
    again();
  };
  return html`<label class="file">Add contacts <input type="file" accept=".csv,text/csv" onChange=${chosen} /></label>
    <${Encoding} aria-label="Encoding" value=${encoding} onChange=${(event) => setEncoding(event.target.value)} />
    ${said && (said.error ? html`<p class="trouble" role="alert">${said.error.message}</p>` : html`<span class="said" role="status">${said.text}</span>`)}`;
}

function Campaign({ campaign, again }) {
  const { state, contacts } = campaign;
  const act = (name) => async () => {
    try {
      await post(`/campaigns/${campaign.campaign_id}/${name}`, {});
    } finally {
      again();
    }
  };
  const begun = Object.keys(contacts).some((name) => name !== "waiting");
  const over = state === "canceled" || state === "done";
  return html`<article class="panel" aria-label=${campaign.name}>
    <div class="row"><h3>${campaign.name}</h3><${Badge} kind=${KINDS[state] || ""}>${state}<//></div>
    <p class="quiet">${campaign.agent}, ${campaign.purpose}, made ${when(campaign.created_at)}, at most ${campaign.options.attempts ?? 3} attempts each</p>
    ${campaign.reason && html`<p class=${state === "tripped" ? "bad" : "quiet"}>${campaign.reason}</p>`}
    <${Funnel} counts=${contacts} />
    ${may("operator") && !over && html`<div class="row">
      ${state === "running"
        ? html`<${Act} key="pause" label="Pause" act=${act("pause")} />`
        : html`<${Act} key="resume" label=${begun ? "Resume" : "Start"} kind="primary" act=${act("resume")} />`}
      <${Act} key="cancel" label="Cancel" sure="Really cancel?" kind="danger" act=${act("cancel")} />
      <${AddContacts} campaign=${campaign} again=${again} /></div>`}
  </article>`;
}

function New({ agents, again }) {
  const [state, setState] = useState({ busy: false, said: null });
  const make = async (event) => {
    event.preventDefault();
    if (state.busy) return;
    const form = event.target;
    const given = new FormData(form);
    setState({ busy: true, said: null });
    try {
      const order = { name: given.get("name"), agent: given.get("agent"), purpose: given.get("purpose"), attempts: Number(given.get("attempts")) };
      const made = await post("/campaigns", order);
      form.reset();
      const file = given.get("csv");
      const contacts = file && file.size ? ` ${await upload(made.campaign_id, file, given.get("encoding"))}.` : "";
      setState({ busy: false, said: { text: `Made. It calls nobody until you start it.${contacts}` } });
    } catch (error) {
      setState({ busy: false, said: { error } });
    }
    again();
  };
  return html`<details class="panel"><summary>New campaign</summary>
    <form class="stacked" onSubmit=${make} aria-label="New campaign">
      <div class="fields">
        <label>Name<input name="name" required maxlength="200" autocomplete="off" /></label>
        <label>Agent<select name="agent">${agents.map((one) => html`<option value=${one.name}>${one.name}</option>`)}</select></label>
        <label>Purpose<select name="purpose"><option value="service">service</option><option value="marketing">marketing, needs consent</option></select></label>
        <label>Attempts for each<input name="attempts" type="number" min="1" max="20" required defaultValue="3" /></label>
        <label>Contacts (CSV)<input name="csv" type="file" accept=".csv,text/csv" /></label>
        <label>Encoding<${Encoding} /></label>
      </div>
      <p class="quiet">A column <code>number</code>, perhaps <code>time_zone</code>, all others are variables of the agent:</p>
      <pre class="sample">${SAMPLE}</pre>
      <div class="row"><button class="primary" aria-disabled=${state.busy}>Make campaign</button></div>
    </form>
    ${state.said && (state.said.error ? html`<p class="trouble" role="alert">${state.said.error.message}</p>` : html`<p role="status">${state.said.text}</p>`)}</details>`;
}

export function Campaigns({ agents }) {
  const { data, error, again } = usePolled("/campaigns", (found) => found.campaigns.some((one) => one.state === "running"));
  const found = data ? [...data.campaigns].reverse() : [];
  return html`<section aria-label="Campaigns"><h2>Campaigns</h2>
    ${error && html`<${Trouble} error=${error} again=${again} />`}
    ${may("operator") && html`<${New} agents=${agents} again=${again} />`}
    ${data && !found.length && html`<${Empty} title="No campaigns yet">A campaign calls everybody in a CSV file, each until they answer or it has tried often enough.
      ${may("operator") ? " Open New campaign above." : " Making one takes the scope operator."}<//>`}
    <div class="grid wide">${found.map((one) => html`<${Campaign} key=${one.campaign_id} campaign=${one} again=${again} />`)}</div></section>`;
}
