// The live calls, as the wall and others show them: a list that is asked for, made fresher by events.
import { get } from "./api.js";
import { onEvent, onLevels } from "./feed.js";
import { isSession, useEffect, useRef, useState } from "./ui.js";

const ASK_MS = 5_000; // cost and the like: words, turns and levels come with the feed
const IDLE_MS = 10_000;
const CHANGES_LIST = new Set(["call_admitted", "call_ended", "gap", "stream_opened"]);

// The last words of a call that began before this page came.
async function lastWords(callId) {
  const { lines } = await get(`/calls/${callId}/transcript`);
  const line = lines.at(-1);
  return line && { party: line.party, text: line.text };
}

// {calls, last, error, at}: `last` has the last words of each call, `at` when `calls` was true.
export function useLiveCalls() {
  const [state, setState] = useState({ calls: null, last: {}, error: null, at: 0 });
  const timer = useRef(0);
  useEffect(() => {
    let over = false;
    const known = new Set();
    const ask = async () => {
      clearTimeout(timer.current);
      let wait = ASK_MS;
      try {
        const { calls } = await get("/live/calls");
        if (over) return;
        wait = calls.length && !document.hidden ? ASK_MS : IDLE_MS;
        setState((old) => ({ ...old, calls, error: null, at: performance.now() }));
        for (const { call_id: id } of calls.filter((call) => !known.has(call.call_id)).slice(0, 20)) {
          known.add(id);
          lastWords(id).then(
            (said) => said && setState((old) => ({ ...old, last: { [id]: said, ...old.last } })),
            () => {}, // no history is kept: the next words will show
          );
        }
      } catch (error) {
        if (!over) setState((old) => ({ ...old, error }));
      }
      if (!over) timer.current = setTimeout(ask, wait);
    };
    const undo = onEvent((event) => {
      if (CHANGES_LIST.has(event.type)) ask();
      if (event.type !== "caller_said" && event.type !== "agent_said") return;
      const party = event.type === "caller_said" ? "caller" : "agent";
      const said = { party, text: event.text };
      setState((old) => ({ ...old, last: { ...old.last, [event.call_id]: said } }));
    });
    ask();
    return () => {
      over = true;
      clearTimeout(timer.current);
      undo();
    };
  }, []);
  return state;
}

// The sessions of the gateway that go on, as {call_id, agent, model, started_at}, by their ids.
export function useSessions() {
  const [sessions, setSessions] = useState({});
  useEffect(() => {
    const ended = new Set(); // the history may have them in progress for a moment longer
    const ask = (missed) =>
      get("/calls?outcome=in_progress&limit=200").then(
        ({ calls }) => {
          const found = calls.filter((one) => isSession(one) && !ended.has(one.call_id));
          setSessions((old) => ({ ...Object.fromEntries(found.map((one) => [one.call_id, one])), ...(missed ? {} : old) }));
        },
        () => {}, // no history is kept: those that begin from now on will show
      );
    ask(false);
    const later = setTimeout(() => ask(false), 1_500); // it has those that had just begun by then
    const undo = onEvent((event) => {
      if (event.type === "gap") ask(true);
      else if (isSession(event))
        setSessions(({ [event.call_id]: known, ...others }) => {
          if (event.type === "call_ended") {
            ended.add(event.call_id);
            return others;
          }
          const { call_id, agent, started_at } = known || { ...event, started_at: event.at };
          return { ...others, [call_id]: { call_id, agent, started_at, model: event.model || known?.model || "" } };
        });
    });
    return () => {
      clearTimeout(later);
      undo();
    };
  }, []);
  return Object.values(sessions);
}

// Of each live call, by its id: the levels of caller and agent in dBFS, and whose turn it is.
export function useLevels() {
  const [levels, setLevels] = useState({});
  useEffect(() => onLevels(setLevels), []);
  return levels;
}

// The time, once a second, so that durations go on between two answers.
export function useTick() {
  const [now, setNow] = useState(performance.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(performance.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  return now;
}
