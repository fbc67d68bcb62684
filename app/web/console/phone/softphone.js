// One call from the page: microphone, media stream and player.
import { openAudio, openMicrophone, openPlayer } from "./audio.js";
import { MediaStream } from "./stream.js";

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
    this.quiet = 0;
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
      this.microphone = await openMicrophone(this.context, (data) => this.onFrame(data));
      this.player = await openPlayer(this.context, 1, (data) => this.onReport(data));
      this.call = await this.ask(number);
      this.stream = new MediaStream(this.call, {
        media: (bytes) => this.player.push(bytes),
        mark: (name) => this.player.mark(name),
        clear: () => this.player.clear(),
        closed: (code) => this.onClosed(code),
      });
      this.set({ state: "talking" });
    } catch (error) {
      this.close();
      this.set({ state: "over", error: error.message });
    }
  }

  onFrame({ frame, peak }) {
    if (this.stream) this.stream.sendFrame(frame);
    if (peak > this.levels.caller || ++this.quiet > 4) {
      this.quiet = 0;
      this.set({ levels: { ...this.levels, caller: peak } });
    }
  }

  onReport({ mark, levels, underruns, queuedMs }) {
    if (mark !== undefined) return this.stream.returnMark(mark);
    this.set({ levels: { ...this.levels, agent: levels[0] }, underruns: underruns[0], queuedMs: queuedMs[0] });
  }

  onClosed(code) {
    const error = code === 1000 || code === 1005 ? "" : `The line was lost (${code}).`;
    this.close();
    if (this.state !== "over") this.set({ state: "over", error, levels: { caller: 0, agent: 0 } });
  }

  press(digit) {
    if (this.stream) this.stream.press(digit);
  }

  mute(muted) {
    if (this.microphone) this.microphone.mute(muted);
    this.set({ muted });
  }

  hangUp() {
    if (this.stream) this.stream.hangUp();
    this.close();
    this.set({ state: "over", levels: { caller: 0, agent: 0 } });
  }

  // The view is left: a call that goes on would be heard by nobody.
  leave() {
    this.onChange = () => {};
    if (this.stream) this.hangUp();
    else this.close();
  }

  close() {
    if (this.microphone) this.microphone.close();
    if (this.context && this.context.state !== "closed") this.context.close();
    this.microphone = this.player = this.context = this.stream = null;
  }
}
