// The words of a call from its events, in order, with the wait before each answer.
export const EMPTY = { lines: [], waits: {}, ended: null };

// What was said, and the part of it that was not heard.
export function split({ text, heard_text: heard, cut_off: cut }) {
  if (!cut || heard === undefined) return [text, ""];
  return text.startsWith(heard) ? [heard, text.slice(heard.length)] : [heard, text];
}

// Lines in their order: what an agent has said is known after what came meanwhile.
const sorted = (lines) => lines.sort((one, other) => one.at - other.at);

// `state` with one more event.
export function withEvent(state, event) {
  const line = { at: event.at_ms, id: event.item_id };
  switch (event.type) {
    case "caller_said":
      return { ...state, lines: sorted([...state.lines, { ...line, who: "caller", text: event.text }]) };
    case "agent_said": {
      const [heard, unheard] = split(event);
      return { ...state, lines: sorted([...state.lines, { ...line, who: "agent", text: heard, unheard }]) };
    }
    case "turn_timed": {
      const heard = event.heard_ms ?? event.sent_ms;
      if (heard === null || heard === undefined) return state;
      return { ...state, waits: { ...state.waits, [event.item_id]: heard - event.caller_stopped_ms } };
    }
    case "key_pressed":
      return { ...state, lines: sorted([...state.lines, { ...line, who: "key", text: event.digit }]) };
    case "tool_ran":
      return { ...state, lines: sorted([...state.lines, { ...line, who: "tool", text: event.name }]) };
    case "call_ended":
      return { ...state, ended: event.summary };
    default:
      return state;
  }
}
