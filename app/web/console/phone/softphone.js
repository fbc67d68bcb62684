// One call from the page: microphone, line and player.
import { openAudio, openLine, openMicrophone, openPlayer } from "./audio.js";

export class Softphone {
  // `ask(number)` gets a ticket; `onChange` is told when something to show has changed.
  constructor(ask, onChange) {
    this.ask = ask;
    this.onChange = onChange;
    this.state = "idle"; // calling, talking, over
    this.error = "";
    this.levels = { caller: 0, agent: 0 };
    this.muted = false;
    this.underruns = 0;
    this.call = null;
  }

  set(changes) {
    Object.assign(this, changes);
    this.onChange(this);
  }

  // In the click on Call.
  async dial(number) {
    this.set({ state: "calling", error: "", underruns: 0, muted: false });
    try {
      this.context = await openAudio();
      this.microphone = await openMicrophone(this.context, ({ peak }) => this.onLevel("caller", peak));
      this.player = await openPlayer(this.context, 1, (data) => this.onReport(data));
      this.call = await this.ask(number);
      const line = openLine(this.call, this.microphone, this.player, (code) => line === this.line && this.onClosed(code));
      this.line = line;
      this.set({ state: "talking" });
    } catch (error) {
      this.close();
      this.set({ state: "over", error: error.message });
    }
  }

  onLevel(side, peak) {
    if (peak !== undefined) this.set({ levels: { ...this.levels, [side]: peak } });
  }

  onReport({ levels, underruns, queuedMs }) {
    Object.assign(this, { underruns: underruns[0], queuedMs: queuedMs[0] });
    this.onLevel("agent", levels[0]);
  }

  onClosed(code) {
    const error = code === 1000 || code === 1005 ? "" : `The line was lost (${code}).`;
    this.close();
    if (this.state !== "over") this.set({ state: "over", error, levels: { caller: 0, agent: 0 } });
  }

  press(digit) {
    if (this.line) this.line.press(digit);
  }

  mute(muted) {
    if (this.microphone) this.microphone.mute(muted);
    this.set({ muted });
  }

  hangUp() {
    if (this.line) this.line.hangUp();
    this.close();
    this.set({ state: "over", levels: { caller: 0, agent: 0 } });
  }

  // The view is left: a call that goes on would be heard by nobody.
  leave() {
    this.onChange = () => {};
    if (this.line) this.hangUp();
    else this.close();
  }

  close() {
    if (this.microphone) this.microphone.close();
    if (this.context && this.context.state !== "closed") this.context.close();
    this.microphone = this.player = this.context = this.line = null;
  }
}
