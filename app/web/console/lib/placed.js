// Calls that were placed and campaigns, asked for anew while something goes on.
import { get } from "./api.js";
import { onEvent } from "./feed.js";
import { useEffect, useRef, useState } from "./ui.js";

const ASK_MS = 2_000;
const IDLE_MS = 10_000;
const CHANGES_LIST = new Set(["call_placed", "call_ringing", "call_admitted", "call_not_answered", "call_ended", "gap"]);

// An answer that is asked for again: soon while `busy` says so of it, and at events that change it.
export function usePolled(path, busy, onSaid = () => {}) {
  const [state, setState] = useState({ data: null, error: null });
  const asking = useRef(() => {});
  useEffect(() => {
    let over = false;
    let timer = 0;
    let newest = 0;
    const ask = async () => {
      clearTimeout(timer);
      const mine = ++newest;
      let wait = IDLE_MS;
      try {
        const data = await get(path);
        if (over || mine !== newest) return; // a later answer says more
        if (busy(data) && !document.hidden) wait = ASK_MS;
        setState({ data, error: null });
      } catch (error) {
        if (over || mine !== newest) return;
        setState((old) => ({ ...old, error }));
      }
      timer = setTimeout(ask, wait);
    };
    let soon = 0;
    const undo = onEvent((event) => {
      if (!CHANGES_LIST.has(event.type)) return;
      onSaid(event);
      clearTimeout(soon);
      soon = setTimeout(ask, 150); // a campaign has many at once
    });
    asking.current = ask;
    ask();
    return () => {
      over = true;
      clearTimeout(timer);
      clearTimeout(soon);
      undo();
    };
  }, [path]);
  return { ...state, again: () => asking.current() };
}

// {calls, ringing, notReady, error, again}: `ringing` has the ids of phones that ring.
export function usePlaced() {
  const [ringing, setRinging] = useState(new Set());
  const heard = (event) => {
    if (event.type === "call_ringing") setRinging((old) => new Set(old).add(event.call_id));
  };
  const { data, error, again } = usePolled("/placed_calls", (found) => found.calls.some((call) => call.state !== "ended"), heard);
  return { calls: data && data.calls, notReady: data && data.not_ready, ringing, error, again };
}
