// The transcript of one live call.
import { clock, html, useEffect, useState } from "../lib/ui.js";
import { EMPTY, withEvent } from "./transcript.js";

const NAMES = { caller: "Caller", agent: "Agent", key: "Key", tool: "Tool" };

// The words of a call as they come; `onEvent` follows the events of all calls.
export function useTranscript(callId, onEvent) {
  const [said, setSaid] = useState(EMPTY);
  useEffect(() => {
    setSaid(EMPTY);
    if (!callId) return undefined;
    return onEvent((event) => {
      if (event.call_id === callId) setSaid((state) => withEvent(state, event));
    });
  }, [callId]);
  return said;
}

function Line({ line, wait }) {
  return html`
    <li class=${line.who}>
      <span class="at">${clock(line.at)}</span>
      <span class="words"><span class="party">${NAMES[line.who]}</span><bdi>${line.text}${line.unheard && html`<del title="not heard">${line.unheard}</del>`}</bdi>
        ${wait !== undefined && html`<span class="side wait"> answered after ${wait} ms</span>`}</span>
    </li>`;
}

export function Transcript({ of, empty }) {
  if (of.lines.length === 0) return html`<p class="quiet">${empty}</p>`;
  return html`
    <ol class="turns" aria-live="polite">
      ${of.lines.map((line) => html`<${Line} key=${`${line.who}${line.id || line.at}`} line=${line} wait=${line.who === "caller" ? of.waits[line.id] : undefined} />`)}
    </ol>`;
}
