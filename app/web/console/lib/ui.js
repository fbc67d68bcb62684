// Small parts that the views share. Text from calls only ever becomes text nodes.
import { html, useCallback, useEffect, useRef, useState } from "../vendor/htm-preact.js";
import { onFeedState } from "./feed.js";

export { html };
export * from "../vendor/htm-preact.js";

export const WORDS = {
  in_progress: "in progress",
  answered: "answered",
  never_claimed: "no sound came",
  busy: "all lines busy",
  refused: "turned away",
  diverted: "put through",
  lost: "lost with its process",
  caller_hung_up: "caller hung up",
  agent_hung_up: "agent hung up",
  operator_hung_up: "operator hung up",
  carrier_lost: "line lost",
  voice_lost: "model lost",
  max_duration: "too long",
  max_cost: "too expensive",
  silence: "nobody spoke",
  drained: "server stopped",
  internal_error: "our error",
};

export const words = (code) => WORDS[code] || String(code || "").replaceAll("_", " ");

export function clock(ms) {
  if (ms === null || ms === undefined) return "–";
  const all = Math.max(0, Math.floor(ms / 1000));
  const [h, m, s] = [Math.floor(all / 3600), Math.floor(all / 60) % 60, all % 60];
  const two = (n) => String(n).padStart(2, "0");
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

export const ms = (n) => (n === null || n === undefined ? "–" : `${Math.round(n)} ms`);

export function usd(amount) {
  if (amount === null || amount === undefined) return "–";
  if (amount === 0) return "$0";
  const digits = amount < 1 ? 4 : 2;
  return `$${amount.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })}`;
}

// The time zone of all times that the page shows: the browser's.
export const zone = () =>
  new Intl.DateTimeFormat([], { timeZoneName: "short" }).formatToParts().find((part) => part.type === "timeZoneName").value;

export function when(iso) {
  if (!iso) return "–";
  const [at, now] = [new Date(iso), new Date()];
  const time = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  if (at.toDateString() === now.toDateString()) return time;
  const year = at.getFullYear() === now.getFullYear() ? undefined : "numeric";
  return `${at.toLocaleDateString([], { month: "short", day: "numeric", year })}, ${time}`;
}

const RETRY_MS = 5_000;

// True of an error that passes by itself: no answer, or one of a server or store that is unwell.
const passes = (error) => error !== null && (error.status === 0 || error.status >= 500);

// An answer of the API: {data, error, loading, again}; asked anew when `deps` change. An error that
// passes leaves what was said before, and it is asked again: soon, or as soon as the feed is back.
export function useAnswer(ask, deps) {
  const [state, setState] = useState({ data: null, error: null, loading: true });
  const [count, setCount] = useState(0);
  const again = useCallback(() => setCount((n) => n + 1), []);
  const to = JSON.stringify(deps);
  useEffect(() => {
    let current = true;
    setState((old) => ({ ...old, loading: true }));
    ask().then(
      (data) => current && setState({ data, to, error: null, loading: false }),
      (error) => current && setState((old) => ({ ...(passes(error) && old.to === to ? old : { data: null }), error, loading: false })),
    );
    return () => {
      current = false;
    };
  }, [...deps, count]);
  useEffect(() => {
    if (!passes(state.error)) return undefined;
    if (state.error.status === 0) return onFeedState((feed) => feed === "live" && again());
    const timer = setTimeout(again, RETRY_MS);
    return () => clearTimeout(timer);
  }, [state.error]);
  return { ...state, again };
}

const DARK = matchMedia("(prefers-color-scheme: dark)");

// True while colors are dark: what paints with them itself paints anew when that changes.
export function useDark() {
  const [dark, setDark] = useState(DARK.matches);
  useEffect(() => {
    const changed = () => setDark(DARK.matches);
    DARK.addEventListener("change", changed);
    return () => DARK.removeEventListener("change", changed);
  }, []);
  return dark;
}

export const Page = ({ title, aside, children }) => html`
  <main id="main" tabindex="-1">
    <header class="page"><h1>${title}</h1><div class="aside">${aside}</div></header>
    ${children}
  </main>`;

// What had the focus is gone: the keyboard goes on in the view, and not at the top of the page.
export const focusView = () => document.getElementById("main")?.focus({ preventScroll: true });

export const Empty = ({ title, children }) => html`
  <div class="empty"><p class="strong">${title}</p><div>${children}</div></div>`;

export const Trouble = ({ error, again }) => html`
  <div class="trouble" role="alert">
    <span>${error.message}</span>
    ${again && html`<button onClick=${again}>Try again</button>`}
  </div>`;

// What an answer shows: a line while it loads, its error, or what `children` makes of it. Of a server
// that is gone the line on top of the page tells.
export function Answer({ of, children }) {
  if (of.error && of.data === null) return html`<${Trouble} error=${of.error} again=${of.again} />`;
  if (of.data === null) return html`<p class="quiet" role="status">Loading …</p>`;
  return html`${of.error && of.error.status !== 0 && html`<${Trouble} error=${of.error} again=${of.again} />`}${children(of.data)}`;
}

// A name or words of somebody: in their own direction, and never wider than a column may be.
export const Name = ({ children }) => html`<bdi class="name">${children}</bdi>`;

export const Badge = ({ kind = "", children }) => html`<span class=${`badge ${kind}`}>${children}</span>`;

// True of a session of the gateway, which is kept as a call is; its agent is the key that opened it.
export const isSession = ({ call_id: id = "" }) => id.startsWith("gws_");

// What became of a call; of one that was placed, busy is the other side.
export const outcomeOf = (call) => (call.direction === "outbound" ? call.outcome.replaceAll("_", " ") : words(call.outcome));

export function outcomeKind(call) {
  if (call.direction === "outbound" && ["busy", "no_answer", "canceled"].includes(call.outcome)) return "warn";
  if (call.outcome === "lost" || call.outcome === "refused" || call.outcome === "busy") return "bad";
  if (call.tool_errors || call.voice_errors) return "warn";
  return call.outcome === "in_progress" ? "live" : "good";
}

// A line of fields with an Act: Enter in a field presses it.
export const Line = ({ children }) => html`<form class="row" onSubmit=${(event) => event.preventDefault()}>${children}</form>`;

// A button that acts, and says what came of it. It is never `disabled` while it acts: the keyboard's
// focus would be gone.
export function Act({ label, act, kind = "", sure = "" }) {
  const [state, setState] = useState("");
  const place = useRef(null);
  useEffect(() => () => {
    if (place.current?.contains(document.activeElement)) focusView(); // it has done away with itself
  }, []);
  const press = async () => {
    if (state === "busy") return;
    if (sure && state !== "sure") return setState("sure");
    setState("busy");
    try {
      await act();
      setState("done");
    } catch (error) {
      setState(error.message);
    }
  };
  const said = ["", "busy", "done", "sure"].includes(state) ? "" : state;
  return html`
    <span class="act" ref=${place}>
      <button class=${kind} aria-disabled=${state === "busy"} onClick=${press}>
        ${state === "sure" ? sure : label}
      </button>
      <span class="said" role="status">${state === "done" ? "done" : said}</span>
    </span>`;
}
