// The console: the login, the frame around the views, and the way to them.
// A view is a module with a default export: a component that gets `params`, the parts of the
// address behind its name, and `query`, an URLSearchParams.
import { logIn, logOut, onStranger, openSession, session } from "./lib/api.js";
import { feed, onFeedState, startFeed, stopFeed } from "./lib/feed.js";
import { focusView, html, render, useEffect, useErrorBoundary, useRef, useState } from "./lib/ui.js";

const VIEWS = {
  wall: { title: "Live", load: () => import("./views/wall.js") },
  phone: { title: "Phone", load: () => import("./views/phone.js") },
  history: { title: "History", load: () => import("./views/history.js") },
  agents: { title: "Agents", load: () => import("./views/agents.js") },
  outbound: { title: "Outbound", load: () => import("./views/outbound.js") },
  health: { title: "Health", load: () => import("./views/health.js") },
  call: { title: "Call", hidden: true, load: () => import("./views/call.js") },
};

function place() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...params] = path.split("/").map(decodeURIComponent);
  return { name: VIEWS[name] ? name : "wall", params, query: new URLSearchParams(query) };
}

function Login({ onDone }) {
  const [error, setError] = useState("");
  const submit = async (event) => {
    event.preventDefault();
    try {
      const given = Object.fromEntries(new FormData(event.target));
      await logIn(given.key ? { key: given.key } : { name: given.name, password: given.password });
      onDone();
    } catch (problem) {
      setError(problem.message);
    }
  };
  return html`
    <main class="login" id="main">
      <h1>Trunkline</h1>
      <form onSubmit=${submit}>
        <label for="name">Name</label>
        <input id="name" name="name" autocomplete="username" autocapitalize="none" spellcheck="false" autofocus />
        <label for="password">Password</label>
        <input id="password" name="password" type="password" autocomplete="current-password" />
        <label for="key">or an API key</label>
        <input id="key" name="key" type="password" autocomplete="off" />
        <button class="primary">Log in</button>
        <p class="said" role="alert">${error}</p>
      </form>
      <p class="quiet">Or run <code>trunkline console</code> on the server: it prints a link that
        opens this page, once. <code>trunkline passwords set NAME</code>${" "}
        gives somebody a password, <code>trunkline keys create NAME</code> makes a key.</p>
    </main>`;
}

const Unloaded = () => html`<main id="main" tabindex="-1"><h1>This view could not be loaded</h1><p>It is tried again when the server answers.</p></main>`;

function Frame({ onLeave }) {
  const [at, setAt] = useState(place());
  const [loaded, setLoaded] = useState({ name: "", View: null });
  const [state, setState] = useState(feed.state);
  const [broken, repair] = useErrorBoundary();
  useEffect(() => {
    const moved = () => setAt(place());
    addEventListener("hashchange", moved);
    const undo = onFeedState(setState);
    startFeed();
    return () => {
      removeEventListener("hashchange", moved);
      undo();
      stopFeed();
    };
  }, []);
  useEffect(() => {
    document.title = `${VIEWS[at.name].title} · Trunkline`;
    repair();
    let current = true;
    VIEWS[at.name].load().then(
      (module) => current && setLoaded({ name: at.name, View: module.default }),
      () => current && setLoaded({ name: at.name, View: Unloaded }),
    );
    return () => {
      current = false;
    };
  }, [at.name, loaded.View === Unloaded && state === "live"]);
  const View = loaded.name === at.name ? loaded.View : null;
  const seen = useRef(location.hash);
  useEffect(() => {
    if (!View || seen.current === location.hash) return;
    seen.current = location.hash;
    if (document.activeElement === document.body) focusView();
  }, [at, loaded]);
  const links = Object.entries(VIEWS).filter(([, view]) => !view.hidden);
  return html`
    <a class="skip" href="#main" onClick=${(event) => {
      event.preventDefault();
      document.getElementById("main")?.focus();
    }}>Skip to the content</a>
    <nav aria-label="Views">
      <a class="brand" href="#/wall" aria-label="Trunkline, live calls"><img src="/console/icon.svg" alt="" width="24" height="24" /><span>Trunkline</span></a>
      ${links.map(([name, view]) => html`<a href=${`#/${name}`} aria-current=${name === at.name ? "page" : null}>${view.title}</a>`)}
      <span class="who">
        <span class="name" title=${session.client.scope}>${session.client.name}</span>
        ${session.login && html`<button class="small" onClick=${onLeave}>Log out</button>`}
      </span>
    </nav>
    ${state === "cut" && html`<p class="cut" role="status">The live feed is cut. Trying again; what you see may be old.</p>`}
    ${broken
      ? html`<main id="main"><div class="trouble" role="alert">This view has failed: ${String(broken.message)} <button onClick=${repair}>Try again</button></div></main>`
      : View && html`<${View} key=${at.params.join("/")} params=${at.params} query=${at.query} />`}`;
}

function App() {
  const [known, setKnown] = useState(session.client !== null);
  useEffect(() => onStranger(() => setKnown(false)), []);
  const leave = async () => {
    await logOut().catch(() => {});
    await openSession().catch(() => {});
    setKnown(session.client !== null);
  };
  return known ? html`<${Frame} onLeave=${leave} />` : html`<${Login} onDone=${() => setKnown(true)} />`;
}

async function start() {
  const link = /^#login=([A-Za-z0-9_-]+)$/.exec(location.hash);
  if (link) {
    history.replaceState(null, "", "/console#/wall"); // the link is used up: nobody needs to see it
    await logIn({ link: link[1] }).catch(() => {});
  }
  await openSession().catch(() => {});
  render(html`<${App} />`, document.getElementById("app"));
}

start();
