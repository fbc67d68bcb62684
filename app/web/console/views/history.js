// Calls that were kept: filters, words that were said, charts.
import { get } from "../lib/api.js";
import { Badge, Empty, Name, Page, Trouble, clock, html, isSession, ms, outcomeKind, outcomeOf, useAnswer, useEffect, useRef, useState, usd, when, words, zone } from "../lib/ui.js";
import { Charts } from "../lib/charts.js";

const PROBLEMS = { went_silent: "went silent", barge_in: "barge-in", tool_failed: "tool failed", transfer_failed: "transfer failed" };
const SPANS = { 1: "today", 7: "7 days", 30: "30 days", 365: "a year" };
const OUTCOMES = ["answered", "in_progress", "never_claimed", "busy", "refused", "diverted", "no_answer", "canceled", "failed", "lost"];

// The filter as the API takes it, of the address of this view.
function filterOf(query) {
  const filter = new URLSearchParams();
  for (const name of ["outcome", "agent", "number", "tag", "over_usd"]) {
    if (query.get(name)) filter.set(name, query.get(name).trim());
  }
  query.getAll("problem").forEach((problem) => filter.append("problem", problem));
  const since = new Date(Date.now() - (Number(query.get("days") || 7) - 1) * 86_400_000);
  since.setHours(0, 0, 0, 0);
  filter.set("since", since.toISOString());
  return filter;
}

function go(query, changes) {
  const next = new URLSearchParams(query);
  for (const [name, value] of Object.entries(changes)) {
    next.delete(name);
    [value].flat().filter(Boolean).forEach((one) => next.append(name, one));
  }
  location.hash = `#/history?${next}`;
}

function Filters({ query }) {
  const form = useRef(null);
  // Only an address that is new is put into the form: what is being typed stays, and so does the focus.
  useEffect(() => {
    for (const field of form.current.elements) if (field.name) field.value = query.get(field.name) || (field.name === "days" ? "7" : "");
  }, [String(query)]);
  const problems = query.getAll("problem");
  const toggle = (name) => go(query, { problem: problems.includes(name) ? problems.filter((one) => one !== name) : [...problems, name] });
  const submit = (event) => {
    event.preventDefault();
    go(query, Object.fromEntries(new FormData(event.target)));
  };
  return html`<section class="panel" aria-label="Filters">
    <form class="row" role="search" ref=${form} onSubmit=${submit}>
      <input class="wide" name="q" type="search" aria-label="Words that were said" placeholder="Words that were said" />
      <input name="number" aria-label="Number" placeholder="+15551234567" size="14" />
      <input name="tag" aria-label="Tag" placeholder="tag" size="8" />
      <input name="over_usd" inputmode="decimal" aria-label="Cost over, in dollars" placeholder="cost over $" size="9" />
      <select name="outcome" aria-label="Outcome">
        <option value="">any outcome</option>${OUTCOMES.map((one) => html`<option value=${one}>${words(one)}</option>`)}</select>
      <select name="days" aria-label="Time">${Object.entries(SPANS).map(([days, name]) => html`<option value=${days}>${name}</option>`)}</select>
      <button class="primary">Search</button>
    </form>
    <div class="row" role="group" aria-label="What went wrong">${Object.entries(PROBLEMS).map(([name, title]) => html`
      <button class="small" aria-pressed=${problems.includes(name)} onClick=${() => toggle(name)}>${title}</button>`)}
      ${[...query.keys()].length > 0 && html`<a href="#/history">Clear</a>`}
    </div>
  </section>`;
}

function Row({ call }) {
  const trouble = [call.barge_ins && `barge-ins: ${call.barge_ins}`, call.tool_errors && `tools failed: ${call.tool_errors}`, call.voice_errors && `model errors: ${call.voice_errors}`].filter(Boolean);
  return html`<tr>
    <td class="whole"><a href=${`#/call/${call.call_id}`}>${when(call.started_at)}</a></td>
    <td>${isSession(call) ? html`<${Badge}>session<//>` : html`<${Name}>${call.caller_number || "withheld"}<//>`}</td><td><${Name}>${call.agent || "–"}<//></td>
    <td><${Badge} kind=${outcomeKind(call)}>${outcomeOf(call)}<//> ${call.reason !== call.outcome && html`<span class="quiet">${words(call.reason)}</span>`}</td>
    <td class="quiet">${trouble.join(", ")}</td>
    <td class="number" data-label="Length">${clock(call.duration_ms)}</td><td class="number" data-label="Latency">${ms(call.turn_latency_p50_ms)}</td><td class="number" data-label="Cost">${usd(call.cost_usd)}</td>
  </tr>`;
}

// An answer in pages: {items, next, error, loading, load}; `of` names its items.
function usePages(path, of) {
  const [pages, setPages] = useState({ items: [], next: null, error: null, loading: true });
  const newest = useRef(0);
  const load = async (cursor) => {
    const mine = ++newest.current;
    setPages((old) => ({ ...(cursor ? old : { items: [] }), error: null, loading: true }));
    try {
      const answer = await get(`${path}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);
      if (mine !== newest.current) return; // something else is asked by now
      setPages((old) => ({ items: [...old.items, ...answer[of]], next: answer.next, error: null, loading: false }));
    } catch (error) {
      if (mine === newest.current) setPages((old) => ({ ...old, error, loading: false }));
    }
  };
  useEffect(() => {
    load(null);
  }, [path]);
  return { ...pages, load };
}

// What stands below the items of pages.
function More({ of }) {
  const { items, next, error, loading, load } = of;
  return html`
    ${error && html`<${Trouble} error=${error} again=${() => load(next)} />`}
    ${loading && html`<p class="quiet" role="status">Loading …</p>`}
    ${next && !error && html`<p><button aria-disabled=${loading} onClick=${() => loading || load(next)}>More</button> <span class="quiet">${items.length} shown</span></p>`}`;
}

function Calls({ filter, filtered }) {
  const pages = usePages(`/calls?${filter}`, "calls");
  if (!pages.items.length && !pages.loading && !pages.error) {
    return filtered
      ? html`<${Empty} title="No call is like that">Choose a longer time or fewer conditions, or <a href="#/history">clear</a> them.<//>`
      : html`<${Empty} title="No calls in these days"><a href="#/phone">Call the agent</a>, or run <code>make demo</code> in a terminal: the call will be here when it is over.<//>`;
  }
  return html`<section class="panel scroll" tabindex="0" aria-label="Calls">
    <table class="stack"><thead><tr><th>Began (${zone()})</th><th>Caller</th><th>Agent</th><th>Outcome</th><th>What happened</th><th class="number">Length</th><th class="number">Latency</th><th class="number">Cost</th></tr></thead>
      <tbody>${pages.items.map((call) => html`<${Row} key=${call.call_id} call=${call} />`)}</tbody></table>
    <${More} of=${pages} />
  </section>`;
}

function Found({ q }) {
  const hits = usePages(`/search?q=${encodeURIComponent(q)}`, "hits");
  return html`<section class="panel" aria-label="Found"><h2>“${q}” was said</h2>
    <ol class="turns">${hits.items.map((hit) => html`<li key=${`${hit.call_id}${hit.seq}`} class=${hit.party}>
      <a href=${`#/call/${hit.call_id}`}>call</a><span class="words"><span class="party">${hit.party}</span><bdi>${hit.text}</bdi> <span class="quiet">${when(hit.at)}</span></span></li>`)}</ol>
    ${!hits.items.length && !hits.loading && !hits.error && html`<p class="quiet">Nobody has said that. All words must be in one turn; wor* finds what begins so.</p>`}
    <${More} of=${hits} /></section>`;
}

export default function History({ query }) {
  const filter = String(filterOf(query));
  const days = Number(query.get("days") || 7);
  const figures = useAnswer(() => get(`/figures?${filter}&each=${days > 2 ? "day" : "hour"}&ahead_min=${-new Date().getTimezoneOffset()}`), [filter]);
  const q = query.get("q");
  return html`<${Page} title="History" aside=${html`<a class="button" href=${`/api/v1/calls.csv?${filter}`} download>CSV</a>`}>
    <${Filters} query=${query} />
    ${q && html`<${Found} q=${q} />`}
    ${figures.data && figures.data.figures.length > 0 && html`<${Charts} figures=${figures.data.figures} days=${days} />`}
    <${Calls} filter=${filter} filtered=${[...query.keys()].some((name) => name !== "days")} />
  <//>`;
}
