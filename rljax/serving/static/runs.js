// The run page: the figures of report.html, drawn again whenever the run has written something.

import { get } from "./api.js";
import { drawChart } from "./charts.js";
import { find, make, replace } from "./dom.js";

const EVERY = 2000; // milliseconds between two looks
const state = { run: null, next: 0, records: [], timer: null, about: null };

// [title, unit, stage, keys: a list, or an expression with the label in brackets]
const CHARTS = [
  ["Accuracy on held-out problems", "share", "rl", /^eval\/(pass@1|greedy)$|^eval\/(pass@\d+|cons@\d+)$/],
  ["Response length on held-out problems", "tokens", "rl", /^eval\/response_length\/(mean|correct|wrong)$/],
  ["Strategies", "share", "rl", /^eval\/strategy\/(\w+)$/],
  ["Behaviours, share of responses", "share", "rl", /^eval\/behaviour\/([^/]+)$/],
  ["Calculations and verdicts that are right", "share", "rl", /^eval\/(facts_right|verdicts_right|false_yes)$/],
  ["Reward in training", "", "rl", /^train\/(reward)$/],
  ["Response length in training", "tokens", "rl", /^train\/response_length\/(mean|p95)$/],
  ["Groups in training", "share", "rl", /^train\/groups\/(\w+)$/],
  ["Entropy of the policy", "nats", "rl", /^train\/(entropy)$/],
  ["KL from the reference", "nats", "rl", /^train\/(kl)$/],
  ["Norm of the gradient", "", "rl", /^train\/(grad_norm)$/],
  ["Loss, fine-tuning", "nats", "sft", /^(?:train\/)?((?:eval\/)?loss)$/],
  ["Loss, pretraining", "nats", "pretrain", /^(?:train\/)?((?:eval\/)?loss)$/],
];

export function collect(records, stage, expression) {
  const series = new Map();
  for (const record of records) {
    if (record.stage !== stage) continue;
    for (const [key, value] of Object.entries(record)) {
      const match = typeof value === "number" ? expression.exec(key) : null;
      if (!match) continue;
      const name = match.slice(1).find(Boolean);
      if (!series.has(name)) series.set(name, []);
      series.get(name).push([record.step, value]);
    }
  }
  let found = [...series].map(([label, points]) => ({ label, points }));
  const numbered = found.filter((s) => /@\d+$/.test(s.label) && s.label !== "pass@1");
  for (const kind of ["pass@", "cons@"]) {
    // of pass@2, pass@4, ... the largest is shown
    const largest = Math.max(...numbered.filter((s) => s.label.startsWith(kind)).map((s) => Number(s.label.slice(5))));
    found = found.filter((s) => !s.label.startsWith(kind) || s.label === "pass@1" || Number(s.label.slice(5)) === largest);
  }
  return found.filter((s) => s.points.some(([, y]) => y !== 0)).slice(0, 6);
}

function draw() {
  const charts = CHARTS.map(([title, unit, stage, keys]) => ({ title, unit, series: collect(state.records, stage, keys) }));
  const drawn = charts.filter((chart) => chart.series.length).map(drawChart);
  replace(find("charts"), ...(drawn.length ? drawn : [make("p", { class: "muted" }, "This run has measured nothing yet.")]));
}

async function look() {
  try {
    for (let more = true; more; ) {
      const found = await get(`/api/runs/${encodeURIComponent(state.run)}?after=${state.next}`);
      if (found.run !== state.run) return;
      if (found.restart) state.records = [];
      state.records.push(...found.records);
      more = found.records.length > 0 && state.next !== found.next;
      if (more || found.restart) draw();
      state.next = found.next;
      const steps = Object.entries(found.progress).map(([stage, step]) => `${stage} ${step} of ${found.steps[stage] ?? "?"}`);
      find("run-progress").textContent = steps.join(", ") || "has not begun";
    }
    if (!state.records.length) draw();
  } catch (error) {
    find("run-progress").textContent = error.message;
  }
}

function chooseRun(name) {
  Object.assign(state, { run: name, next: 0, records: [] });
  replace(find("charts"));
  look();
}

export function updateRuns(sources) {
  const runs = sources.filter((s) => !s.is_folder).map((s) => s.name);
  const select = find("run");
  if ([...select.options].map((o) => o.value).join() === runs.join()) return;
  replace(select, ...runs.map((name) => make("option", { value: name }, name)));
  if (runs.includes(state.run)) select.value = state.run;
}

export function showRuns(shown) {
  clearInterval(state.timer);
  if (!shown) return;
  if (!state.run) chooseRun(find("run").value);
  else look();
  state.timer = setInterval(() => state.run && look(), EVERY);
}

find("run").addEventListener("change", () => chooseRun(find("run").value));
