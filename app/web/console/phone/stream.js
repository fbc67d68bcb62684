// The carrier's end of a media stream: the messages that Twilio sends, over a socket with a ticket.
// Follows Twilio voice/media-streams/websocket-messages.
export function toBase64(bytes) {
  return btoa(String.fromCharCode(...bytes));
}

export function fromBase64(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

export function openSocket({ path, protocol, ticket }) {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  return new WebSocket(`${scheme}//${location.host}${path}`, [protocol, ticket]);
}

export class MediaStream {
  // `on` has functions `media(bytes)`, `mark(name)`, `clear()` and `closed(code)`.
  constructor(call, on) {
    this.call = call;
    this.on = on;
    this.streamSid = `MZ${call.carrier_call_id.replace("browser-", "")}`;
    this.sequence = 0;
    this.chunk = 0;
    this.socket = openSocket(call);
    this.socket.onopen = () => this.start();
    this.socket.onmessage = ({ data }) => this.receive(JSON.parse(data));
    this.socket.onclose = ({ code }) => this.on.closed(code);
  }

  get open() {
    return this.socket.readyState === WebSocket.OPEN && this.sequence > 0;
  }

  start() {
    this.socket.send(JSON.stringify({ event: "connected", protocol: "Call", version: "1.0.0" }));
    this.send("start", {
      streamSid: this.streamSid,
      accountSid: this.call.account_id,
      callSid: this.call.carrier_call_id,
      tracks: ["inbound"],
      mediaFormat: { encoding: "audio/x-mulaw", sampleRate: 8000, channels: 1 },
      customParameters: { token: this.call.token },
    });
  }

  send(event, body) {
    if (this.socket.readyState !== WebSocket.OPEN) return;
    this.sequence++;
    const { streamSid } = this;
    const sequenceNumber = String(this.sequence);
    this.socket.send(JSON.stringify({ event, sequenceNumber, streamSid, [event]: body }));
  }

  // 20 ms of the microphone.
  sendFrame(frame) {
    if (!this.open) return;
    const timestamp = String(this.chunk * 20);
    this.chunk++;
    const payload = toBase64(frame);
    this.send("media", { track: "inbound", chunk: String(this.chunk), timestamp, payload });
  }

  returnMark(name) {
    this.send("mark", { name });
  }

  press(digit) {
    this.send("dtmf", { track: "inbound_track", digit });
  }

  hangUp() {
    const { account_id: accountSid, carrier_call_id: callSid } = this.call;
    this.send("stop", { accountSid, callSid });
    this.socket.close(1000);
  }

  receive(message) {
    if (message.event === "media") this.on.media(fromBase64(message.media.payload));
    else if (message.event === "mark") this.on.mark(message.mark.name);
    else if (message.event === "clear") this.on.clear();
  }
}
