// Charts of the calls over time, with uPlot.
import uPlot from "../vendor/uplot.js";
import { html, ms, usd, useEffect, useRef, words } from "./ui.js";

const HEIGHT = 170;
const COLORS = { answered: "--good", lost: "--bad", refused: "--warn", busy: "--warn" };

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// A chart of `series`, [{label, values, color}], over `times` in seconds.
function Chart({ title, times, series, shown, bars = false }) {
  const place = useRef(null);
  useEffect(() => {
    const box = place.current;
    const axis = { stroke: color("--quiet"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
    const options = {
      width: box.clientWidth,
      height: HEIGHT,
      padding: [8, 22, 0, 0],
      cursor: { y: false },
      axes: [axis, { ...axis, size: 58, values: (_, all) => all.map((value) => (value === null ? "" : shown(value))) }],
      scales: { y: { range: (_, least, most) => [0, (most || 1) * 1.1] } },
      series: [
        {},
        ...series.map((one) => ({
          label: one.label,
          stroke: color(one.color),
          fill: bars ? color(one.color) : undefined,
          width: bars ? 0 : 2,
          paths: bars ? uPlot.paths.bars({ size: [0.6, 40] }) : undefined,
          points: { show: !bars && times.length < 60 },
          value: (_, value) => (value === null || value === undefined ? "–" : shown(value)),
        })),
      ],
    };
    const chart = new uPlot(options, [times, ...series.map((one) => one.values)], box);
    const observer = new ResizeObserver(() => chart.setSize({ width: box.clientWidth, height: HEIGHT }));
    observer.observe(box);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    const redraw = () => chart.redraw();
    scheme.addEventListener("change", redraw);
    return () => {
      scheme.removeEventListener("change", redraw);
      observer.disconnect();
      chart.destroy();
    };
  }, [times, series]);
  return html`<section class="panel chart" aria-label=${title}><h2>${title}</h2><div ref=${place}></div></section>`;
}

// A stretch without calls is a gap of the data: it is put in, as nothing.
function filled(figures, each) {
  const found = [];
  for (const one of figures) {
    const at = Date.parse(one.at) / 1000;
    for (let last = found.at(-1)?.time; last !== undefined && at - last > each && found.length < 2000; last += each) {
      if (last > found.at(-1).time) found.push({ time: last, calls: 0, outcomes: {}, cost_usd: 0 });
    }
    found.push({ ...one, time: at });
  }
  return found;
}

export function Charts({ figures, days }) {
  const all = filled(figures, days > 2 ? 86_400 : 3_600);
  const times = all.map((one) => one.time);
  const totals = {};
  figures.forEach((one) => Object.entries(one.outcomes).forEach(([name, n]) => (totals[name] = (totals[name] || 0) + n)));
  const calls = figures.reduce((sum, one) => sum + one.calls, 0);
  const cost = figures.reduce((sum, one) => sum + one.cost_usd, 0);
  const minutes = figures.reduce((sum, one) => sum + one.duration_ms, 0) / 60_000;
  const least = (name) => all.map((one) => one[name] ?? null);
  return html`
    <div class="figures">
      <div class="figure"><b>${calls.toLocaleString()}</b>calls</div>
      <div class="figure"><b>${calls ? Math.round(((totals.answered || 0) / calls) * 100) : 0} %</b>answered</div>
      <div class="figure"><b>${Math.round(minutes).toLocaleString()}</b>minutes</div>
      <div class="figure"><b>${usd(cost)}</b>cost</div>
    </div>
    <div class="grid">
      <${Chart} title="Calls" times=${times} bars shown=${(n) => String(n)} series=${[
        { label: "all", values: all.map((one) => one.calls), color: "--quiet" },
        ...Object.keys(totals).filter((name) => name === "answered").map((name) => ({ label: words(name), values: all.map((one) => one.outcomes[name] || 0), color: COLORS[name] || "--accent" })),
      ]} />
      <${Chart} title="Latency of a turn" times=${times} shown=${ms} series=${[
        { label: "median", values: least("turn_latency_p50_ms"), color: "--accent" },
        { label: "95 %", values: least("turn_latency_p95_ms"), color: "--agent" },
      ]} />
      <${Chart} title="Cost" times=${times} bars shown=${usd} series=${[{ label: "dollars", values: all.map((one) => one.cost_usd), color: "--accent" }]} />
    </div>
    <p class="quiet">${Object.entries(totals).map(([name, n]) => `${words(name)}: ${n.toLocaleString()}`).join(" · ")}</p>`;
}
