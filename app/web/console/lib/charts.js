// Charts of the calls over time, with uPlot.
import uPlot from "../vendor/uplot.js";
import { html, ms, usd, useDark, useEffect, useRef, words } from "./ui.js";

const HEIGHT = 170;
const COLORS = { answered: "--good", lost: "--bad", refused: "--warn", busy: "--agent", in_progress: "--accent" };

const DAY = 86_400;
const HOURS = [1, 2, 3, 6, 12, 24].map((hours) => hours * 3_600);
const DAYS = [1, 2, 7, 14, 30, 90].map((days) => days * DAY);
const atHour = (s) => new Date(s * 1000).toLocaleTimeString([], { hour: "numeric", minute: "2-digit" });
const onDay = (s) => new Date(s * 1000).toLocaleDateString([], { month: "short", day: "numeric" });

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// A chart of `series`, [{label, values, color, ends}], over `times` in seconds, `each` apart. Bars
// stand on one another: `ends` is where one ends, and the last is drawn first.
// Without values the axis goes up to `high`.
function Chart({ title, times, each, series, shown, high = 1, bars = false }) {
  const place = useRef(null);
  const dark = useDark();
  useEffect(() => {
    const box = place.current;
    const axis = { stroke: color("--quiet"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
    const options = {
      width: box.clientWidth,
      height: HEIGHT,
      padding: [8, 22, 0, 0],
      cursor: { y: false },
      axes: [{ ...axis, incrs: each < DAY ? HOURS : DAYS, values: (_, all) => all.map(each < DAY ? atHour : onDay) }, { ...axis, size: 58, values: (_, all) => all.map((value) => (value === null ? "" : shown(value))) }],
      scales: {
        // Not what uPlot has found: of a single point it makes years.
        x: { range: () => [times[0] - each * 0.6, times.at(-1) + each * 0.6] },
        y: { range: (_, least, most) => [0, (most || high) * 1.1] },
      },
      series: [
        {},
        ...series.map((one) => ({
          label: one.label,
          stroke: color(one.color),
          fill: bars ? color(one.color) : undefined,
          width: bars ? 0 : 2,
          paths: bars ? uPlot.paths.bars({ size: [0.6, 40] }) : undefined,
          points: { show: !bars && times.length < 60 },
          value: (_, value, n, at) => {
            const here = at === null || at === undefined ? null : one.values[at];
            return here === null || here === undefined ? "–" : shown(here);
          },
        })),
      ],
    };
    const chart = new uPlot(options, [times, ...series.map((one) => one.ends || one.values)], box);
    const observer = new ResizeObserver(() => chart.setSize({ width: box.clientWidth, height: HEIGHT }));
    observer.observe(box);
    return () => {
      observer.disconnect();
      chart.destroy();
    };
  }, [times, series, dark]);
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

// The calls of each outcome, as bars that stand on one another.
function stacked(all, names) {
  let ends = all.map(() => 0);
  const found = names.map((name) => {
    const values = all.map((one) => one.outcomes[name] || 0);
    ends = ends.map((end, at) => end + values[at]);
    return { label: words(name), values, ends, color: COLORS[name] || "--quiet" };
  });
  return found.reverse();
}

// An amount without needless zeros: $1.00, $0.50, $0.0098.
const short = (amount) => usd(amount).replace(/(\.\d\d)0+$/, "$1");

export function Charts({ figures, days }) {
  const each = days > 2 ? DAY : 3_600;
  const all = filled(figures, each);
  const times = all.map((one) => one.time);
  const totals = {};
  figures.forEach((one) => Object.entries(one.outcomes).forEach(([name, n]) => (totals[name] = (totals[name] || 0) + n)));
  const calls = figures.reduce((sum, one) => sum + one.calls, 0);
  const cost = figures.reduce((sum, one) => sum + one.cost_usd, 0);
  const minutes = figures.reduce((sum, one) => sum + one.duration_ms, 0) / 60_000;
  const least = (name) => all.map((one) => one[name] ?? null);
  return html`
    <div class="figures">
      <div class="figure"><b>${calls.toLocaleString()}</b>${calls === 1 ? "call" : "calls"}</div>
      <div class="figure"><b>${calls ? Math.round(((totals.answered || 0) / calls) * 100) : 0} %</b>answered</div>
      <div class="figure"><b>${Math.round(minutes).toLocaleString()}</b>${Math.round(minutes) === 1 ? "minute" : "minutes"}</div>
      <div class="figure"><b>${usd(cost)}</b>cost</div>
    </div>
    <div class="grid">
      <${Chart} title="Calls by outcome" times=${times} each=${each} bars shown=${(n) => (Number.isInteger(n) ? String(n) : "")} series=${stacked(all, Object.keys(totals).sort((one, other) => totals[other] - totals[one]))} />
      <${Chart} title="Latency of a turn, mean of the calls" times=${times} each=${each} shown=${ms} high=${1000} series=${[
        { label: "median", values: least("turn_latency_p50_ms"), color: "--accent" },
        { label: "95th percentile", values: least("turn_latency_p95_ms"), color: "--agent" },
      ]} />
      <${Chart} title="Cost" times=${times} each=${each} bars shown=${short} series=${[{ label: "dollars", values: all.map((one) => one.cost_usd), color: "--accent" }]} />
    </div>
    <p class="quiet">${Object.entries(totals).map(([name, n]) => `${words(name)}: ${n.toLocaleString()}`).join(" · ")}</p>`;
}
