// A call's events as lines of a page, and where the time of each turn went.
import { words } from "./ui.js";

const SPOKEN = new Set(["caller_said", "agent_said"]);
const SILENT = new Set(["turn_timed", "stages_timed", "call_admitted", "model_told", "turn_analyzed", "carrier_reported"]);

// Words of others in their own direction: without it, those that run from right to left move ours.
const apart = (text) => (text ? `\u2068${text}\u2069` : "");

const TOLD = {
  call_placed: (b) => b.taken_over ? "the call was taken over from a server that died"
    : `${b.caller_number} is called (${b.purpose})`,
  call_ringing: (b) => `the phone rings after ${b.after_ms} ms`,
  call_not_answered: (b) => `no conversation: ${words(b.reason)}`,
  carrier_verdict: (b) => `the carrier takes it for: ${words(b.answered_by)}`,
  answer_judged: (b) => `answered by: ${words(b.verdict)}, judged after ${b.after_ms} ms`,
  disclosure_heard: () => "the disclosure was heard",
  opted_out: (b) => `never to be called again: ${apart(b.words)}`,
  call_turned_away: (b) => `turned away: ${words(b.reason)}${b.put_through_to ? `, put through to ${apart(b.put_through_to)}` : ""}`,
  call_lost: () => "the process that had the call is gone",
  analysis_failed: (b) => `analysis failed: ${words(b.code)}`,
  task_started: (b) => `task handed over: ${apart(b.task?.text)}`,
  task_answered: (b) => `task answered after ${b.duration_ms} ms: ${apart(b.error ? words(b.error) : b.answer)}`,
  call_reviewed: () => "the call was reviewed",
  stream_opened: () => "the caller's sound flows",
  voice_ready: (b) => `${b.reconnected ? "model connected again" : "model ready"}: ${b.model || ""} after ${b.waited_ms} ms`,
  first_sound: (b) => `first sound of the agent after ${b.after_ms} ms`,
  barge_in: (b) => `the caller spoke over the agent, who was heard for ${b.heard_ms} of ${b.sent_ms} ms`,
  speech_resumed: () => "that was no interruption: the agent goes on",
  key_pressed: (b) => `key ${b.digit}`,
  message_taken: (b) => `message for ${apart(b.recipient)}: ${apart(b.text)}`,
  tool_ran: (b) => `tool ${apart(b.name)}, ${b.duration_ms} ms${b.error ? `: ${apart(b.error)}` : ""}`,
  tool_approval_required: (b) => `tool ${apart(b.name)} waits for ${b.by}: ${apart(b.arguments)}`,
  handed_off: (b) => `${apart(b.from_agent)} handed over to ${apart(b.to_agent)}`,
  transfer_started: (b) => `transfer to ${apart(b.destination)}${b.warm ? ", asked first" : ""}`,
  transfer_ended: (b) => `transfer to ${apart(b.destination)}: ${words(b.outcome)}`,
  operator_acted: (b) => `${apart(b.by)}: ${words(b.action)} ${apart(b.text)}`,
  recording_started: () => "recording starts",
  recording_stopped: (b) => `recording stops: ${words(b.reason)}`,
  guardrail_tripped: (b) => `guardrail ${apart(b.guardrail)}: ${apart(b.reason)}`,
  voice_reconnecting: (b) => `the model's connection was lost: ${b.code}`,
  voice_trouble: (b) => `model: ${b.code} ${b.message || ""}`,
  call_ended: (b) => `over: ${words(b.summary?.reason)}`,
};
const BAD = new Set(["voice_reconnecting", "voice_trouble", "guardrail_tripped", "analysis_failed", "call_lost"]);
const PUT_THROUGH = new Set(["answered", "unknown", "canceled"]);

function isBad(event) {
  if (event.type === "transfer_ended") return !PUT_THROUGH.has(event.outcome);
  return BAD.has(event.type) ? !event.benign : Boolean(event.error);
}

// [{key, at, party, text, heard, side, bad}], ordered by time.
export function linesOf(events) {
  const lines = [];
  for (const event of events) {
    const at = event.at_ms || 0;
    if (SPOKEN.has(event.type)) {
      const party = event.type === "caller_said" ? "caller" : "agent";
      const heard = party === "agent" ? event.heard_text : event.text;
      lines.push({ key: event.seq, at, party, text: event.text, heard, cut: event.cut_off, failed: event.failed });
    } else if (!SILENT.has(event.type)) {
      const text = TOLD[event.type] ? TOLD[event.type](event) : words(event.type);
      lines.push({ key: event.seq, at, side: text, bad: isBad(event) });
    }
  }
  return lines.sort((one, other) => one.at - other.at || one.key - other.key);
}

export const PARTS = ["finding the end of the turn", "model begins", "model thinks", "on its way", "until it is heard"];

// [{at, total, parts}]: milliseconds of each turn by PARTS, from the caller's last sound on.
export function timesOf(events) {
  const found = [];
  for (const event of events) {
    if (event.type !== "turn_timed") continue;
    const points = [event.caller_stopped_ms, event.turn_found_ms, event.response_ms, event.model_sound_ms, event.sent_ms, event.heard_ms];
    const parts = [];
    let last = points[0];
    for (const point of points.slice(1)) {
      const here = point === null || point === undefined ? last : Math.max(last, point);
      parts.push(here - last);
      last = here;
    }
    if (last > points[0]) found.push({ at: points[0], total: last - points[0], parts });
  }
  return found;
}

// The text behind what was heard: what the caller did not hear.
export function unheard(text, heard) {
  return text.startsWith(heard) ? text.slice(heard.length) : "";
}
