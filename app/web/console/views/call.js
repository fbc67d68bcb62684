// One call: what was said and heard, what happened, where the time went, and what to do in it.
import { get, may, post, put } from "../lib/api.js";
import { useTick } from "../lib/calls.js";
import { onEvent } from "../lib/feed.js";
import { PARTS, linesOf, timesOf, unheard } from "../lib/turns.js";
import { Act, Answer, Badge, Line, Name, Page, clock, html, isSession, ms, outcomeKind, outcomeOf, useAnswer, useEffect, useRef, useState, usd, when, words, zone } from "../lib/ui.js";
import { Recording } from "../lib/wave.js";
import Supervise from "./supervise.js";

const MOST_TRIES = 4;
const KEPT_AFTER_MS = 1_000; // by then the history has what the feed has said: it writes twice a second
const REFRESH_MS = 3_000;

const FRESH = 1_000_000; // numbers events behind all that are kept

// True when the history has an event of the feed.
const has = (events, { type, at_ms: at, item_id: item }) => events.some((one) => one.type === type && one.at_ms === at && one.item_id === item);

function Words({ line }) {
  const rest = line.party === "agent" ? unheard(line.text, line.heard) : "";
  return html`<span class="words"><span class="party">${line.party}</span>
    <bdi>${line.failed ? html`<span class="quiet">(not understood)</span>` : rest ? line.heard : line.text}
    ${rest && html`<del title="not heard by the caller">${rest}</del>`}</bdi>${rest && html`<span class="quiet"> (not heard)</span>`}</span>`;
}

function Turns({ lines, time, seek }) {
  const spoken = lines.filter((line) => line.party && line.at <= time);
  const now = time > 0 ? spoken.at(-1)?.key : null;
  if (!lines.length) return html`<p class="quiet">Nothing has happened yet.</p>`;
  return html`<ol class="turns">${lines.map((line) => html`
    <li key=${line.key} class=${`${line.party || ""} ${line.key === now ? "now" : ""}`}>
      <button class="at" disabled=${!seek} onClick=${() => seek(line.at)} aria-label=${`at ${clock(line.at)}`}>${clock(line.at)}</button>
      ${line.party ? html`<${Words} line=${line} />` : html`<span class=${`side ${line.bad ? "bad" : ""}`}>${line.side}</span>`}
    </li>`)}</ol>`;
}

function Times({ times }) {
  if (!times.length) return null;
  const most = Math.max(...times.map((turn) => turn.total));
  return html`<section class="panel"><h2>Where the time went</h2>
    ${times.map((turn) => {
      let x = 0;
      const told = turn.parts.map((part, i) => `${PARTS[i]} ${part} ms`).join(", ");
      return html`<div class="time"><span class="quiet">${clock(turn.at)}</span>
        <svg viewBox="0 0 1000 16" preserveAspectRatio="none" role="img" aria-label=${told}>
          ${turn.parts.map((part, i) => {
            const wide = (part / most) * 1000;
            x += wide;
            return html`<rect class=${`part${i}`} x=${x - wide} y="0" width=${wide} height="16"><title>${PARTS[i]}: ${part} ms</title></rect>`;
          })}
        </svg><span>${turn.total} ms</span></div>`;
    })}
    <div class="legend">${PARTS.map((name, i) => html`<span><svg viewBox="0 0 10 10" aria-hidden="true"><rect class=${`part${i}`} width="10" height="10" /></svg>${name}</span>`)}</div>
  </section>`;
}

const seconds = (at) => `${(at / 1000).toFixed(2)} s`;
const MARKS = { problem: "bad", notice: "warn" };

const Remedy = ({ text }) => text && html`<span class="detail">What to do: ${text}</span>`;

function Step({ of }) {
  return html`<li><span class="at">${seconds(of.at_ms)}</span><span class="words"><span class=${MARKS[of.mark] || ""}>${of.text}</span>
    ${of.details.map((detail) => html`<span class="detail">${detail}</span>`)}<${Remedy} text=${of.remedy} /></span></li>`;
}

function Explained({ of }) {
  const [open, setOpen] = useState(false);
  const { headline, problem, entries } = of;
  return html`<section class=${`panel explained ${problem ? "problem" : ""}`} aria-label="Explanation"><p class="strong">${headline}</p>
    ${problem
      ? html`<p><span class="bad">First problem, ${seconds(problem.at_ms)} into the call:</span> ${problem.text}<${Remedy} text=${problem.remedy} /></p>`
      : html`<p class="quiet">Nothing went wrong, as far as the events of the call show.</p>`}
    ${open && html`<ol class="turns steps">${entries.map((one, n) => html`<${Step} key=${n} of=${one} />`)}</ol>`}
    ${entries.length > 0 && html`<button class="small" aria-expanded=${open} onClick=${() => setOpen(!open)}>${open ? "Less" : `All ${entries.length} steps`}</button>`}</section>`;
}

// The parts of a cost, and what is missing in it.
function Costs({ call }) {
  const parts = Object.entries(call.costs);
  const notes = [call.cost_estimated && "a part of it is estimated", call.cost_unknown.length > 0 && `not in it, since config.yaml has no price for it: ${call.cost_unknown.join(", ")}`].filter(Boolean);
  if (!parts.length && !notes.length) return null;
  return html`<details><summary>Cost by class</summary><dl class="facts">
    ${parts.map(([name, amount]) => html`<dt>${words(name)}</dt><dd>${usd(amount)}</dd>`)}</dl>
    ${notes.map((note) => html`<p class="quiet">${note}</p>`)}</details>`;
}

// Tools that wait for an operator.
function Approvals({ callId, again }) {
  const waiting = useAnswer(() => get("/approvals"), [callId]);
  const found = (waiting.data?.approvals || []).filter((one) => one.call_id === callId);
  const decide = (one, approved) => () => post(`/approvals/${callId}/${encodeURIComponent(one.tool_call_id)}`, { approved }).then(again);
  return found.map((one) => html`<div key=${one.tool_call_id} role="group" aria-label=${`Approval of ${one.tool}`}>
    <p><code>${one.tool}</code> waits for you: <code>${JSON.stringify(one.arguments)}</code></p>
    <p class="row"><${Act} label="Approve" kind="primary" act=${decide(one, true)} /><${Act} label="Refuse" act=${decide(one, false)} /></p></div>`);
}

// What a live call waits for and has cost so far, and its recording.
function Now({ callId }) {
  const turn = Math.floor(useTick() / REFRESH_MS);
  const seen = useAnswer(() => get("/live/calls"), [callId, turn]);
  const call = seen.data?.calls.find((one) => one.call_id === callId);
  if (!call) return null;
  const paused = call.recording === "paused";
  const pause = () => post(`/calls/${callId}/pause_recording`, { paused: !paused }).then(seen.again);
  return html`<section class="panel" aria-label="Now"><h2>Now</h2>
    ${call.approvals > 0 && may("operator") && html`<${Approvals} key=${call.approvals} callId=${callId} again=${seen.again} />`}
    <p>Cost so far: ${usd(call.cost_usd)}</p><${Costs} call=${call} />
    ${call.recording !== "off" && html`<p class="row"><span role="status">${paused ? "The recording is paused." : "The call is recorded."}</span>
      ${may("operator") && html`<${Act} key=${call.recording} label=${paused ? "Record again" : "Pause recording"} act=${pause} />`}</p>`}
  </section>`;
}

function Facts({ call }) {
  const counted = call.outcome !== "in_progress"; // the row has its counts when the call is over
  const [theirs, ours] = call.direction === "outbound" ? ["Called", "From"] : ["Caller", "Called"];
  const parties = isSession(call) ? [["Key", call.agent]] : [[theirs, call.caller_number || "withheld"], [ours, call.called_number], ["Agent", call.agent]];
  const facts = [
    ...parties, ["Model", call.model],
    ["Began", `${when(call.started_at)} ${zone()}`], ["Lasted", clock(call.duration_ms)], ["First sound", ms(call.first_sound_ms)],
    ["Turn latency", call.turn_latency_p50_ms === null ? "–" : `${ms(call.turn_latency_p50_ms)}, 95th percentile ${ms(call.turn_latency_p95_ms)}`],
    ...(counted ? [["Turns", call.turns], ["Barge-ins", call.barge_ins], ["Tools", call.tool_errors ? `${call.tool_calls}, failed ${call.tool_errors}` : call.tool_calls]] : []),
    ["Transferred to", call.transferred_to || "–"], ["Cost", usd(call.cost_usd)], ["Carrier's id", isSession(call) ? "" : call.carrier_call_id],
  ];
  return html`<section class="panel"><h2>Facts</h2><dl class="facts">
    ${facts.filter(([, value]) => value !== "–" && value !== "" && value !== null).map(([name, value]) => html`<dt>${name}</dt><dd><bdi>${value}</bdi></dd>`)}</dl><${Costs} call=${call} /></section>`;
}

function Steer({ callId, destinations }) {
  const [text, setText] = useState("");
  const [mode, setMode] = useState("exactly");
  const [to, setTo] = useState("");
  const path = `/calls/${callId}`;
  const say = async () => {
    await post(`${path}/say`, { text, mode });
    setText("");
  };
  return html`<section class="panel"><h2>Actions</h2>
    <${Line}><input class="wide" aria-label="Words for the agent" placeholder="Words for the agent" value=${text} onInput=${(e) => setText(e.target.value)} />
      <select aria-label="How it is said" value=${mode} onChange=${(e) => setMode(e.target.value)}>
        <option value="exactly">word for word</option><option value="own_words">in its own words</option><option value="instruction">tell the agent only</option>
      </select><${Act} label="Say" act=${say} /><//>
    <p class="row"><${Act} label="Stop the agent" act=${() => post(`${path}/interrupt`)} />
      <${Act} label="Goodbye" act=${() => post(`${path}/hang_up`, { goodbye: true })} />
      <${Act} label="Hang up" kind="danger" sure="Really hang up?" act=${() => post(`${path}/hang_up`, {})} /></p>
    ${destinations.length > 0 && html`<div class="row"><select aria-label="Destination" value=${to} onChange=${(e) => setTo(e.target.value)}>
      <option value="">transfer to …</option>${destinations.map((one) => html`<option value=${one.name}>${one.name}</option>`)}</select>
      ${to && html`<${Act} key=${to} label="Transfer" act=${() => post(`${path}/transfer`, { destination: to })} />`}</div>`}
  </section>`;
}

function Notes({ call, again }) {
  const [text, setText] = useState("");
  const [tags, setTags] = useState(call.tags.join(", "));
  const path = `/calls/${call.call_id}`;
  const add = async () => {
    await post(`${path}/notes`, { text });
    setText("");
    again();
  };
  const tag = () => put(`${path}/tags`, { tags: tags.split(",").map((one) => one.trim()).filter(Boolean) });
  return html`<section class="panel"><h2>Notes and tags</h2>
    ${call.notes.map((note) => html`<p key=${note.note_id}><bdi>${note.text}</bdi><br /><span class="quiet"><bdi>${note.author}</bdi>, ${when(note.at)}</span></p>`)}
    ${may("operator") ? html`
      <textarea aria-label="A note" placeholder="A note" value=${text} onInput=${(e) => setText(e.target.value)}></textarea>
      <${Act} label="Add note" act=${add} />
      <${Line}><input class="wide" aria-label="Tags, with commas" placeholder="Tags, with commas" value=${tags} onInput=${(e) => setTags(e.target.value)} /><${Act} label="Set tags" act=${tag} /><//>`
      : html`<p class="quiet">${call.tags.join(", ") || "No tags"}</p>`}
  </section>`;
}

export default function Call({ params }) {
  const callId = params[0] || "";
  const path = `/calls/${encodeURIComponent(callId)}`;
  const row = useAnswer(() => get(path), [callId]);
  const kept = useAnswer(() => get(`${path}/events?limit=5000`), [callId]);
  const explained = useAnswer(() => get(`${path}/explain`), [callId]);
  const places = useAnswer(() => get("/destinations"), []);
  const player = useRef(null);
  const [time, setTime] = useState(0);
  const [over, setOver] = useState(false);
  const [tries, setTries] = useState(0);
  const [fresh, setFresh] = useState([]); // events that the history does not have yet
  useEffect(() => {
    let timer = 0;
    let more = false;
    const refresh = () => {
      [row, kept, explained].forEach((one) => one.again());
      timer = more ? setTimeout(refresh, KEPT_AFTER_MS) : 0;
      more = false;
    };
    const undo = onEvent((event) => {
      if (event.type !== "gap" && event.call_id !== callId) return;
      if (event.type === "call_ended" || event.type === "call_not_answered") setOver(true);
      if (event.type !== "gap") setFresh((old) => [...old, event]);
      if (timer) more = true;
      else timer = setTimeout(refresh, KEPT_AFTER_MS);
    });
    return () => {
      clearTimeout(timer);
      undo();
    };
  }, [callId]);
  useEffect(() => {
    if (kept.data) setFresh((old) => old.filter((event) => !has(kept.data.events, event)));
  }, [kept.data]);
  useEffect(() => {
    if (!over || row.data?.outcome !== "in_progress") return undefined;
    const timer = setTimeout(() => [row, kept, explained].forEach((one) => one.again()), 1000);
    return () => clearTimeout(timer); // until the history has the end as well
  }, [over, row.data]);
  useEffect(() => {
    if (row.error?.code !== "call_not_found" || tries >= MOST_TRIES) return undefined;
    const timer = setTimeout(() => {
      setTries(tries + 1);
      [row, kept, explained].forEach((one) => one.again());
    }, 700);
    return () => clearTimeout(timer); // a call that was just placed is in the history a moment later
  }, [row.error]);
  const early = row.error?.code === "call_not_found" && tries < MOST_TRIES;
  const stored = kept.data ? kept.data.events : [];
  const events = [...stored, ...fresh.filter((event) => !has(stored, event)).map((event, n) => ({ ...event, seq: FRESH + n }))];
  const opened = events.find((event) => event.type === "recording_started")?.at_ms || 0;
  const seek = (at) => {
    player.current.currentTime = Math.max(0, (at - opened) / 1000);
    player.current.play();
  };
  const call = row.data;
  const open = call?.outcome === "in_progress";
  const live = open && !isSession(call) && (call.direction !== "outbound" || call.answered_at !== null); // while it rings, nobody can be heard
  const verb = call?.direction === "outbound" ? "to" : "from";
  const title = !call ? "Call" : isSession(call) ? html`Session of <${Name}>${call.agent}<//>` : html`Call ${verb} <${Name}>${call.caller_number || "a withheld number"}<//>`;
  const aside = call && html`<${Badge} kind=${outcomeKind(call)}>${outcomeOf(call)}<//> ${call.reason && html`<span>${words(call.reason)}</span>`}
    <a class="button" href=${`/api/v1${path}/export?format=text`} download>Export</a>`;
  return html`<${Page} title=${title} aside=${aside}>
    <${Answer} of=${early ? { data: null } : row}>${(found) => html`
      ${explained.data && html`<${Explained} of=${explained.data} />`}
      ${found.recording && !open && html`<${Recording} callId=${callId} player=${player} onTime=${(at) => setTime(at ? at + opened : 0)} />`}
      <div class="two call">
        <div class="course"><section class="panel"><h2>What was said</h2><${Answer} of=${kept}>${() => html`<${Turns} lines=${linesOf(events)} time=${time} seek=${found.recording && !open ? seek : null} />`}<//></section>
          <${Times} times=${timesOf(events)} /></div>
        ${live && html`<div class="controls"><${Supervise} callId=${callId} live=${live} />
          ${may("operator") && html`<${Steer} callId=${callId} destinations=${places.data?.destinations || []} />`}
          <${Now} callId=${callId} /></div>`}
        <div class="facts"><${Facts} call=${found} /><${Notes} key=${callId} call=${found} again=${row.again} /></div>
      </div>`}<//>
  <//>`;
}
