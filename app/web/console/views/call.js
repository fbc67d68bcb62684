import { Page, html } from "../lib/ui.js";

export default function View() {
  return html`<${Page} title="call"></${Page}>`;
}
