// Calls that the server places, where it can.
import { Empty, Page, html } from "../lib/ui.js";

export default function Outbound() {
  return html`<${Page} title="Outbound">
    <${Empty} title="This server places no calls yet">
      It answers calls that come in: see them <a href="#/wall">live</a> and in the <a href="#/history">history</a>.
    <//>
  <//>`;
}
