import { Empty, Page, html } from "../lib/ui.js";

// Replaced by the softphone.
export default function Phone() {
  return html`<${Page} title="Phone">
    <${Empty} title="There is no phone in this page yet">
      Run <code>trunkline dial</code> to call the agent from a terminal.
    </${Empty}>
  </${Page}>`;
}
