// Calls in progress.
import { get } from "../lib/api.js";
import { useLevels, useLiveCalls, useSessions, useTick } from "../lib/calls.js";
import { Badge, Empty, Name, Page, Trouble, clock, html, useAnswer, usd } from "../lib/ui.js";

const SPEAKS = { caller: "caller speaks", agent: "agent speaks", thinking: "agent thinks", idle: "quiet", person: "a person speaks" };

function Speaker({ turn }) {
  return html`<span class=${`speaks ${turn}`}>
    <span class="bars" aria-hidden="true"><i></i><i></i><i></i></span>${SPEAKS[turn] || turn}
  </span>`;
}

const QUIETEST_DB = 60;

function Level({ party, db }) {
  return html`<span class=${`level ${party}`}>${party} <meter min="0" max=${QUIETEST_DB} value=${Math.max(0, QUIETEST_DB + db)} aria-label=${`level of ${party}`}></meter></span>`;
}

function Card({ call, levels, last, at, now }) {
  const [caller, agent, turn] = levels || [-QUIETEST_DB, -QUIETEST_DB, call.turn];
  const elapsed = call.duration_ms + Math.max(0, now - at);
  return html`
    <a class="card panel" href=${`#/call/${call.call_id}`}>
      <div class="top">
        <span class="strong"><${Name}>${call.caller_number || "number withheld"}<//></span>
        <span class="mono" aria-label="elapsed">${clock(elapsed)}</span>
      </div>
      <div class="top quiet"><span>to ${call.called_number || "–"}</span><span>${usd(call.cost_usd)}</span></div>
      <p class="last">${last
        ? html`<span class=${`speaks ${last.party}`}>${last.party}:</span> <bdi>${last.text}</bdi>`
        : html`<span class="quiet">No words yet</span>`}</p>
      <div class="top">
        <${Speaker} turn=${call.taken_over && turn === "agent" ? "person" : turn} />
        <span>
          ${call.taken_over && html`<${Badge} kind="warn">taken over<//> `}
          ${call.approvals > 0 && html`<${Badge} kind="warn">waits for you<//> `}
          ${!call.model_connected && html`<${Badge} kind="warn">no model<//> `}
          ${call.caller !== "attached" && html`<${Badge}>${call.caller.replaceAll("_", " ")}<//> `}
          <${Badge}>${call.agent}<//>
        </span>
      </div>
      <div class="levels"><${Level} party="caller" db=${caller} /><${Level} party="agent" db=${agent} /></div>
    </a>`;
}

function Sessions({ of }) {
  if (!of.length) return null;
  return html`<section class="panel" aria-label="Sessions of the gateway"><h2>Sessions of the gateway</h2><ul class="plain">
    ${of.map((one) => html`<li class="finding" key=${one.call_id}><span class="mono">${clock(Date.now() - Date.parse(one.started_at))}</span>
      <span><a href=${`#/call/${one.call_id}`}><${Name}>${one.agent}<//></a> <span class="quiet">${one.model}</span></span></li>`)}</ul></section>`;
}

function Budget({ budget }) {
  if (!budget) return null;
  const { spent_usd: spent, per_day_usd: most } = budget;
  if (!most) return html`<span>today ${usd(spent)}</span>`;
  return html`<label class="row">today ${usd(spent)} of ${usd(most)}
    <meter min="0" max=${most} high=${most * 0.8} value=${Math.min(spent, most)}></meter></label>`;
}

export default function Wall() {
  const { calls, last, error, at } = useLiveCalls();
  const levels = useLevels();
  const sessions = useSessions();
  const now = useTick();
  const status = useAnswer(() => get("/status"), [calls ? calls.length : 0]);
  const { processes = [], budget } = status.data || {};
  const capacity = processes.reduce((sum, one) => sum + one.capacity, 0);
  const aside = html`
    ${capacity > 0 && html`<span>${calls ? calls.length : 0} of ${capacity} calls</span>`}
    <${Budget} budget=${budget} />`;
  return html`
    <${Page} title="Live calls" aside=${aside}>
      ${error && html`<${Trouble} error=${error} />`}
      ${calls === null && !error && html`<p class="quiet" role="status">Loading …</p>`}
      ${calls && calls.length === 0 && html`
        <${Empty} title="Nobody is on the phone">
          Calls appear here as they come in. <a href="#/phone">Call the agent</a> from this page, or run
          ${" "}<code>make demo</code> in a terminal. Calls that are over are in the <a href="#/history">history</a>.
        <//>`}
      ${calls && calls.length > 0 && html`<div class="grid">
        ${calls.map((call) => html`<${Card} key=${call.call_id} call=${call} levels=${levels[call.call_id]} last=${last[call.call_id]} at=${at} now=${now} />`)}
      </div>`}
      <${Sessions} of=${sessions} />
    <//>`;
}
