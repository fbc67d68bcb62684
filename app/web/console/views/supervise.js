// Listening in to a live call, whispering to its agent, and speaking in its place.
import { may, post } from "../lib/api.js";
import { Act, Line, html, useEffect, useRef, useState } from "../lib/ui.js";
import { Listener } from "../phone/listener.js";

function useListener(callId) {
  const [, draw] = useState(0);
  const held = useRef(null);
  if (held.current === null) {
    const ask = () => post(`/calls/${callId}/supervise`);
    held.current = new Listener(ask, () => draw((count) => count + 1));
  }
  useEffect(() => {
    window.trunklineListener = held.current; // for tests and the curious
    return () => held.current.close();
  }, []);
  return held.current;
}

function Whisper({ callId }) {
  const [text, setText] = useState("");
  const whisper = async () => {
    await post(`/calls/${callId}/whisper`, { text });
    setText("");
  };
  return html`<${Line}>
    <input class="wide" aria-label="Words for the agent alone" placeholder="Words for the agent alone" value=${text} onInput=${(event) => setText(event.target.value)} />
    <${Act} label="Whisper" act=${whisper} />
  <//>`;
}

// `callId` is a live call.
export default function Supervise({ callId }) {
  const listener = useListener(callId);
  if (!may("operator")) return null;
  const { listens, speaks, error, levels } = listener;
  return html`
    <section class="panel supervise" aria-label="Supervise">
      <h2>Listen in</h2>
      <div class="row">
        ${listens
          ? html`<button onClick=${() => listener.close()}>Stop listening</button>`
          : html`<button class="primary" onClick=${() => listener.open()}>Listen</button>`}
        ${listens && html`<button class=${speaks ? "" : "danger"} onClick=${() => (speaks ? listener.handBack() : listener.takeOver())}>${speaks ? "Hand back" : "Take over"}</button>`}
        <span role="status">${speaks ? "You speak to the caller; the agent listens." : listens ? "You hear both sides; they do not hear you." : ""}</span>
      </div>
      ${listens && html`<p class="row">
        <label class="level">caller <meter min="0" max="1" value=${levels[0]} aria-label="level of caller"></meter></label>
        <label class="level">agent <meter min="0" max="1" value=${levels[1]} aria-label="level of agent"></meter></label></p>`}
      ${error && html`<p class="trouble" role="alert">${error}</p>`}
      <${Whisper} callId=${callId} />
    </section>`;
}
