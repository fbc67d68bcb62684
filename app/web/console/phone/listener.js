// A supervisor's ear and voice in one live call: the caller on the left, the agent on the right.
import { openAudio, openMicrophone, openPlayer } from "./audio.js";
import { fromBase64, openSocket, toBase64 } from "./stream.js";

const SIDES = { caller: 0, agent: 1 };

export class Listener {
  // `ask()` gets a ticket; `onChange` is told when something to show has changed.
  constructor(ask, onChange) {
    this.ask = ask;
    this.onChange = onChange;
    this.generation = 0;
    this.reset("");
  }

  reset(error) {
    Object.assign(this, { listens: false, speaks: false, error, levels: [0, 0], heard: [0, 0] });
  }

  set(changes) {
    Object.assign(this, changes);
    this.onChange();
  }

  // In the click on Listen.
  async open() {
    const generation = ++this.generation;
    this.set({ error: "" });
    try {
      this.context = await openAudio();
      this.player = await openPlayer(this.context, 2, ({ levels }) => levels && this.set({ levels }));
      const socket = openSocket(await this.ask());
      this.socket = socket;
      socket.onmessage = ({ data }) => this.receive(JSON.parse(data));
      socket.onclose = ({ code }) => generation === this.generation && this.close(this.told(code));
      this.set({ listens: true });
    } catch (error) {
      this.close(error.message);
    }
  }

  told(code) {
    return [1000, 1001, 1005].includes(code) ? "" : `The call can be heard no more (${code}).`;
  }

  receive(message) {
    if (!this.player) return;
    if (message.event === "media") {
      const bytes = fromBase64(message.payload);
      const side = SIDES[message.side];
      this.heard[side] += bytes.length / 8;
      this.player.push(bytes, side);
    } else if (message.event === "clear") this.player.clear(SIDES.agent);
    else if (message.event === "state") this.onState(message.speaks);
    else if (message.event === "over") this.close();
  }

  async takeOver() {
    try {
      this.microphone = await openMicrophone(this.context, ({ frame }) => {
        if (frame && this.speaks) this.send({ event: "media", payload: toBase64(frame) });
      });
      this.send({ event: "take_over" });
    } catch (error) {
      this.set({ error: error.message });
    }
  }

  handBack() {
    this.send({ event: "hand_back" });
  }

  onState(speaks) {
    const refused = !speaks && !this.speaks && this.microphone;
    if (speaks) this.player.clear(SIDES.agent);
    else this.silence();
    this.set({ speaks, error: refused ? "Somebody else speaks to the caller." : "" });
  }

  send(message) {
    if (this.socket && this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  silence() {
    if (this.microphone) this.microphone.close();
    this.microphone = null;
  }

  close(error = "") {
    this.generation++;
    this.silence();
    if (this.socket) this.socket.close();
    if (this.context && this.context.state !== "closed") this.context.close();
    this.socket = this.context = this.player = null;
    this.reset(error);
    this.onChange();
  }
}
