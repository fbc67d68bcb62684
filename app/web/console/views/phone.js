// The phone: calls an agent from the page, over the carrier's own messages.
import { get, may, post } from "../lib/api.js";
import { onEvent } from "../lib/feed.js";
import { Page, clock, html, useEffect, useRef, useState, words } from "../lib/ui.js";
import { Softphone } from "../phone/softphone.js";
import { Transcript, useTranscript } from "../phone/words.js";

const KEYS = [..."123456789*0#"];

function Level({ name, of }) {
  const db = of > 0 ? Math.max(0, 60 + 20 * Math.log10(of)) : 0;
  return html`<label class="level">${name} <meter min="0" max="60" value=${db} aria-label=${`level of ${name}`}></meter></label>`;
}

function Keypad({ press, off }) {
  return html`
    <div class="keypad" role="group" aria-label="Keypad">
      ${KEYS.map((key) => html`<button disabled=${off} onClick=${() => press(key)} aria-label=${`key ${key}`}>${key}</button>`)}
    </div>`;
}

function Numbers({ of, chosen, choose, off }) {
  return html`
    <label for="number">Number</label>
    <select id="number" class="wide" value=${chosen} disabled=${off} onChange=${(event) => choose(event.target.value)}>
      ${of.length === 0 && html`<option value="">the default agent</option>`}
      ${of.map((own) => html`<option value=${own.number}>${own.number} · ${own.agent}</option>`)}
    </select>`;
}

function usePhone() {
  const [, draw] = useState(0);
  const phone = useRef(null);
  if (phone.current === null) {
    const ask = (number) => post("/phone/tickets", number ? { number } : {});
    phone.current = new Softphone(ask, () => draw((count) => count + 1));
  }
  useEffect(() => {
    window.trunklinePhone = phone.current; // for tests and the curious: figures of the sound
    return () => phone.current.leave();
  }, []);
  return phone.current;
}

export default function Phone() {
  const phone = usePhone();
  const [numbers, setNumbers] = useState([]);
  const [number, setNumber] = useState("");
  const callId = phone.call && phone.call.call_id;
  const said = useTranscript(callId, onEvent);
  useEffect(() => {
    get("/numbers").then(
      (found) => {
        setNumbers(found.numbers);
        setNumber(found.numbers.length ? found.numbers[0].number : "");
      },
      () => {},
    );
  }, []);
  const talking = phone.state === "talking";
  const busy = talking || phone.state === "calling";
  const allowed = may("operator");
  const ended = said.ended && !busy;
  const typed = ({ key, ctrlKey, metaKey, altKey }) => {
    if (!talking || ctrlKey || metaKey || altKey) return;
    if (KEYS.includes(key)) phone.press(key);
    else if (key === "m") phone.mute(!phone.muted);
  };
  return html`
    <${Page} title="Phone">
      <div class="two phone">
        <section class="panel" aria-label="The phone" onKeyDown=${typed}>
          <div class="row">
            <${Numbers} of=${numbers} chosen=${number} choose=${setNumber} off=${busy} />
          </div>
          <div class="row">
            ${busy
              ? html`<button class="danger" onClick=${() => phone.hangUp()}>Hang up</button>`
              : html`<button class="primary" disabled=${!allowed} onClick=${() => phone.dial(number)}>Call</button>`}
            <button disabled=${!talking} aria-keyshortcuts="m" aria-pressed=${String(phone.muted)} onClick=${() => phone.mute(!phone.muted)}>Mute</button>
            <span role="status" class="state">${busy ? phone.state : ""}</span>
          </div>
          ${!allowed && html`<p class="quiet">Calling takes the scope operator.</p>`}
          ${phone.error && html`<p class="trouble" role="alert">${phone.error}</p>`}
          ${ended && html`<p role="status">Over: ${words(said.ended.reason)}, ${clock(said.ended.duration_ms)}.
            ${" "}<a href=${`#/call/${callId}`}>See the call</a></p>`}
          <${Level} name="you" of=${phone.levels.caller} />
          <${Level} name="agent" of=${phone.levels.agent} />
          <${Keypad} press=${(key) => phone.press(key)} off=${!talking} />
          <p class="quiet">Here the keyboard's 0 to 9, * and # are keys as well, and m is Mute.</p>
          ${phone.underruns > 0 && html`<p class="quiet">Sound came too late ${phone.underruns} times.</p>`}
        </section>
        <section class="panel" aria-label="Transcript">
          <${Transcript} of=${said} empty="Press Call and talk. What is said appears here." />
        </section>
      </div>
    </${Page}>`;
}
