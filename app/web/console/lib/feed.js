// The live feed, read by fetch: it tells when it is cut, and resumes where it was.

const QUIET_MS = 40_000; // the server says something every 15 s
const RETRY_MS = 2_000;

export const feed = { state: "closed", listeners: new Set(), stateListeners: new Set() };
let lastId = null;
let opened = false; // before: without an id, the server cannot know what was missed since
let running = null;
let watchers = 0; // of levels
let renew = null; // opens the feed again, asking for levels or not any more

// Calls `listener` with each event of all calls; {type: "gap"} says that some were missed.
export function onEvent(listener) {
  feed.listeners.add(listener);
  return () => feed.listeners.delete(listener);
}

// As onEvent, with {type: "levels"} several times a second beside the events.
export function onLevels(listener) {
  const undo = onEvent((event) => event.type === "levels" && listener(event.calls));
  if (++watchers === 1 && renew) renew();
  return () => {
    undo();
    if (--watchers === 0 && renew) renew();
  };
}

export function onFeedState(listener) {
  feed.stateListeners.add(listener);
  return () => feed.stateListeners.delete(listener);
}

function setState(state) {
  if (feed.state === state) return;
  feed.state = state;
  feed.stateListeners.forEach((tell) => tell(state));
}

function tell(event) {
  feed.listeners.forEach((listener) => listener(event));
}

function take(block) {
  let type = "";
  let data = "";
  for (const line of block.split("\n")) {
    if (line.startsWith("id: ")) lastId = line.slice(4);
    else if (line.startsWith("event: ")) type = line.slice(7);
    else if (line.startsWith("data: ")) data = line.slice(6);
  }
  if (type === "gap") tell({ type: "gap" });
  else if (data) tell(JSON.parse(data));
}

// True when it ends to be opened again at once.
async function follow(stop) {
  const headers = lastId === null ? {} : { "last-event-id": lastId };
  const cut = new AbortController();
  let renewed = false;
  renew = () => {
    renewed = true;
    cut.abort();
  };
  stop.addEventListener("abort", () => cut.abort());
  addEventListener("offline", () => cut.abort(), { signal: cut.signal });
  let quiet = setTimeout(() => cut.abort(), QUIET_MS);
  try {
    const response = await fetch(watchers ? "/api/v1/live?levels=true" : "/api/v1/live", { headers, signal: cut.signal });
    if (!response.ok) return false;
    const missed = opened && lastId === null;
    opened = true;
    setState("live");
    if (missed) tell({ type: "gap" });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return renewed;
      clearTimeout(quiet);
      quiet = setTimeout(() => cut.abort(), QUIET_MS);
      const blocks = (text + value).split("\n\n");
      text = blocks.pop();
      blocks.forEach(take);
    }
  } catch {
    // Cut: by the network, the server's end or silence.
  } finally {
    cut.abort();
    clearTimeout(quiet);
  }
  return renewed;
}

export function startFeed() {
  stopFeed();
  const stop = new AbortController();
  running = stop;
  (async () => {
    while (!stop.signal.aborted) {
      if (await follow(stop.signal)) continue;
      if (stop.signal.aborted) return;
      setState("cut");
      await new Promise((over) => setTimeout(over, RETRY_MS));
    }
  })();
}

export function stopFeed() {
  if (running) running.abort();
  running = null;
  lastId = null;
  opened = false;
  setState("closed");
}
