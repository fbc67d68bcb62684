// The HTTP API, as the page's login may use it.

export const session = { client: null, csrf: "", login: false };

export class ApiError extends Error {
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

const strangers = new Set();

// Calls `listener` when the login has ended.
export function onStranger(listener) {
  strangers.add(listener);
  return () => strangers.delete(listener);
}

async function answered(response) {
  const text = await response.text();
  let body = text;
  try {
    body = JSON.parse(text);
  } catch {
    // Plain text, such as an explanation.
  }
  if (response.ok) return body;
  if (response.status === 401 && session.client) {
    session.client = null;
    strangers.forEach((tell) => tell());
  }
  const error = body.error || body;
  const detail = error.detail || error.message || response.statusText;
  throw new ApiError(response.status, error.code || "", detail);
}

async function sent(method, path, body, file) {
  const headers = session.csrf ? { "x-csrf-token": session.csrf } : {};
  if (body !== undefined || file) headers["content-type"] = file ? "text/csv" : "application/json";
  const payload = file || (body === undefined ? undefined : JSON.stringify(body));
  let response;
  try {
    response = await fetch(path, { method, headers, body: payload, credentials: "same-origin" });
  } catch {
    throw new ApiError(0, "no_server", "The server does not answer");
  }
  return answered(response);
}

export const get = (path) => sent("GET", `/api/v1${path}`);
export const post = (path, body) => sent("POST", `/api/v1${path}`, body);
export const postFile = (path, file) => sent("POST", `/api/v1${path}`, undefined, file);
export const put = (path, body) => sent("PUT", `/api/v1${path}`, body);
export const del = (path) => sent("DELETE", `/api/v1${path}`);

// True when this login may do what needs a scope.
export function may(scope) {
  const order = ["viewer", "operator", "admin"];
  return session.client !== null && order.indexOf(session.client.scope) >= order.indexOf(scope);
}

export async function openSession() {
  Object.assign(session, { csrf: "", login: false }, await sent("GET", "/console/session"));
  return session.client;
}

export async function logIn(given) {
  Object.assign(session, await sent("POST", "/console/login", given));
}

export async function logOut() {
  await sent("POST", "/console/logout", {});
  Object.assign(session, { client: null, csrf: "", login: false });
}
