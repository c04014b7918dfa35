// The page: reads what there is to ask, sends requests, and shows the answers.

import { get, post } from "./api.js";
import { legend, view } from "./attempts.js";
import { find, replace } from "./dom.js";
import { Column } from "./group.js";
import { Choice } from "./policies.js";
import { showRuns, updateRuns } from "./runs.js";

const EVERY = 3000; // milliseconds between two looks at the server's state
let status = null, columns = [], asking = null, written = "", fetched = 0;

function fail(error) {
  find("error").textContent = error.message;
  find("error").hidden = false;
}

const clear = () => { find("error").hidden = true; };

// What there is to ask

const first = new Choice("policy", false, () => policyChanged());
const second = new Choice("beside it", true, () => {});
find("policies").append(first.element, second.element);
let described = "";

function policyChanged() {
  const about = first.about;
  if (!about || about.name === described) return;
  described = about.name;
  find("max_tokens").value = String(about.max_tokens);
  find("max_tokens").max = String(about.window - 1);
  find("stop").placeholder = about.stop.length ? JSON.stringify(about.stop) : "the stop token";
  if (about.problems) find("problem").max = String(about.problems - 1);
  readProblem();
}

async function readStatus(wanted) {
  try {
    status = await get("/api/status");
  } catch {
    find("device").textContent = "the server does not answer";
    return;
  }
  const { running, preparing, waiting } = status.device, asked = running + preparing;
  const compiles = preparing ? ", compiling for a new size" : "";
  find("device").textContent = asked ? `${asked} asking, ${waiting} waiting${compiles}` : "ready";
  const training = status.training;
  find("training").hidden = !training;
  if (training) find("training").textContent = training.said;
  page.algorithms = status.algorithms;
  first.update(status.sources, status.copies, wanted ?? (first.value ? undefined : status.default ?? undefined));
  second.update(status.sources, status.copies);
  find("attempts").max = String(status.limits.attempts);
  find("ask").disabled = asking !== null || !first.value;
  updateRuns(status.sources);
  policyChanged();
}

async function readProblem() {
  const number = ++fetched;
  if (!first.value) return;
  try {
    const found = await post("/api/problem", { model: first.value, problem: Number(find("problem").value) });
    if (number !== fetched) return; // another problem was chosen meanwhile
    find("prompt").value = written = found.prompt;
    find("form-of-text").value = "text";
    find("answer").value = "";
    find("prompt").rows = Math.min(12, Math.max(2, found.prompt.split("\n").length + Math.floor(found.prompt.length / 160)));
    clear();
  } catch (error) {
    fail(error);
  }
}

function changeProblem(by) {
  const input = find("problem");
  input.value = String(Math.max(0, (Number(input.value) || 0) + by));
  readProblem();
}

// Asking

function fields() {
  const of = (id) => Number(find(id).value);
  const out = { attempts: of("attempts"), temperature: of("temperature"), top_p: of("top_p"), max_tokens: of("max_tokens"), seed: of("seed") };
  const text = find("prompt").value, form = find("form-of-text").value;
  // A problem whose text was not touched is asked by its number; one that was changed keeps its right answer.
  if (form === "text") out.problem = of("problem");
  if (text !== written || form !== "text") Object.assign(out, { prompt: text, form });
  if (find("answer").value) Object.assign(out, { answer: find("answer").value, prompt: text, form });
  if (find("stop").value) out.stop = [find("stop").value.replaceAll("\\n", "\n")];
  return out;
}

async function ask() {
  if (asking || !first.value) return;
  clear();
  if (find("new-noise").checked && columns.length) find("seed").value = String(Math.floor(Math.random() * 2 ** 31));
  asking = new AbortController();
  find("ask").disabled = true;
  find("halt").disabled = false;
  const policies = [first.value, second.value].filter((name, i, all) => name && all.indexOf(name) === i);
  const rate = (name) => status.sources.find((s) => s.name === name.split("/")[0])?.rate ?? 0.001;
  columns = policies.map((name) => new Column(page, name, rate(name)));
  replace(find("results"), ...columns.map((column) => column.element));
  find("results").classList.toggle("two", columns.length > 1);
  find("found").textContent = "";
  const sent = fields();
  const answers = await Promise.allSettled(columns.map((column) => column.run(sent, asking.signal)));
  answers.filter((a) => a.status === "rejected").forEach((a) => fail(a.reason));
  asking = null;
  find("halt").disabled = true;
  find("ask").disabled = !first.value;
}

const halt = () => asking?.abort();

function countBehaviours() {
  const counts = new Map();
  for (const column of columns)
    for (const attempt of column.attempts)
      for (const [, , name] of attempt.verdict?.marks ?? []) counts.set(name, (counts.get(name) ?? 0) + 1);
  find("found").textContent = [...counts].map(([name, count]) => `${name} ${count}`).join(", ");
}

const page = {
  algorithms: [],
  algorithm: "grpo",
  fail,
  ask,
  open: () => find("unfold").checked,
  judged: countBehaviours,
  // After a step or a reset, the choice that had asked this column asks the changed policy.
  changed: async (column, policy) => {
    const choice = columns.indexOf(column) === 1 ? second : first;
    const other = choice === first ? second : first, kept = other.value;
    await readStatus(choice === first ? policy : undefined);
    if (choice === second) second.update(status.sources, status.copies, policy);
    else if (kept) second.update(status.sources, status.copies, kept);
  },
};

// Views, tabs, keys

function setView(ids) {
  view.ids = ids;
  for (const button of find("views").children) button.setAttribute("aria-checked", String((button.dataset.view === "ids") === ids));
  find("results").classList.toggle("show-ids", ids);
  for (const column of columns) {
    column.attempts.forEach((attempt) => attempt.draw());
    if (column.promptTokens) column.drawPrompt();
  }
}

function setFolds() {
  for (const column of columns) for (const attempt of column.attempts) if (attempt.verdict) attempt.fold.open = find("unfold").checked;
}

function showTab(name) {
  for (const other of ["ask", "run"]) {
    const chosen = other === name, tab = find(`tab-${other}`);
    find(`page-${other}`).hidden = !chosen;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
  }
  showRuns(name === "run");
}

find("form").addEventListener("submit", (e) => { e.preventDefault(); ask(); });
find("halt").addEventListener("click", halt);
find("problem").addEventListener("change", readProblem);
find("previous").addEventListener("click", () => changeProblem(-1));
find("next").addEventListener("click", () => changeProblem(1));
find("colours").addEventListener("change", () => find("results").classList.toggle("coloured", find("colours").checked));
find("marks").addEventListener("change", () => find("results").classList.toggle("marked", find("marks").checked));
find("unfold").addEventListener("change", setFolds);
for (const button of find("views").children) button.addEventListener("click", () => setView(button.dataset.view === "ids"));
for (const name of ["ask", "run"]) find(`tab-${name}`).addEventListener("click", () => showTab(name));
document.querySelector("nav").addEventListener("keydown", (e) => {
  if (e.key !== "ArrowLeft" && e.key !== "ArrowRight") return;
  const other = find("tab-ask").getAttribute("aria-selected") === "true" ? "run" : "ask";
  showTab(other);
  find(`tab-${other}`).focus();
});
document.addEventListener("keydown", (e) => {
  if (e.key === "Escape") halt();
  if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) { e.preventDefault(); ask(); }
  if (e.ctrlKey || e.metaKey || e.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(e.target.tagName)) return;
  if (e.key === "n" || e.key === "p") changeProblem(e.key === "n" ? 1 : -1);
  if (e.key === "1" || e.key === "2") setView(e.key === "2");
  if (e.key === "t") { find("unfold").checked = !find("unfold").checked; setFolds(); }
});

find("legend").classList.add("coloured");
replace(find("legend"), ...legend());
find("results").classList.add("coloured", "marked");
readStatus();
setInterval(() => readStatus(), EVERY);
