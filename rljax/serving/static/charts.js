// Curves as SVG. A chart is {title, unit, series: [{label, points: [[x, y], ...]}]}.

import { make } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 420, HEIGHT = 220, LEFT = 44, RIGHT = 8, TOP = 8, BOTTOM = 22;

function shape(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

export function ticks(low, high, count = 4) {
  if (!(high > low)) return [low];
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= rough);
  const out = [];
  for (let x = Math.ceil(low / step) * step; x <= high + step * 1e-6; x += step) out.push(Number(x.toPrecision(12)));
  return out;
}

const label = (x, unit) => (unit === "share" ? `${Math.round(100 * x)}%` : Math.abs(x) >= 1000 ? `${x / 1000}k` : String(Number(x.toPrecision(3))));

export function drawChart(chart) {
  const points = chart.series.flatMap((s) => s.points);
  const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
  const x0 = Math.min(...xs), x1 = Math.max(...xs, x0 + 1);
  let y0 = Math.min(...ys), y1 = Math.max(...ys);
  if (chart.unit === "share") [y0, y1] = [0, Math.max(y1, 0.05) > 0.5 ? 1 : Math.max(y1, 0.05)];
  else if (y0 >= 0) y0 = Math.min(y0, 0);
  if (y1 <= y0) y1 = y0 + 1;
  const px = (x) => LEFT + ((WIDTH - LEFT - RIGHT) * (x - x0)) / (x1 - x0);
  const py = (y) => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * (y - y0)) / (y1 - y0);
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  const last = chart.series.map((s) => `${s.label} ${label(s.points.at(-1)[1], chart.unit)}`).join(", ");
  svg.append(shape("title", {}, `${chart.title}: ${last}`));
  for (const y of ticks(y0, y1)) {
    svg.append(shape("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: py(y), y2: py(y) }));
    svg.append(shape("text", { x: LEFT - 6, y: py(y) + 4, "text-anchor": "end" }, label(y, chart.unit)));
  }
  for (const x of ticks(x0, x1, 5)) svg.append(shape("text", { x: px(x), y: HEIGHT - 6, "text-anchor": "middle" }, label(x)));
  chart.series.forEach((s, i) => {
    const path = s.points.map(([x, y], n) => `${n ? "L" : "M"}${px(x).toFixed(1)} ${py(y).toFixed(1)}`).join("");
    svg.append(shape("path", { class: `line c${i % 6}`, d: path }));
    if (s.points.length < 30) s.points.forEach(([x, y]) => svg.append(shape("circle", { class: `c${i % 6}`, cx: px(x), cy: py(y), r: 2.5 })));
  });
  const keys = chart.series.map((s, i) => make("li", {}, make("i", { class: `c${i % 6}` }), `${s.label} ${label(s.points.at(-1)[1], chart.unit)}`));
  return make("figure", {}, make("figcaption", {}, chart.title), svg, make("ul", { class: "keys-of" }, ...keys));
}
