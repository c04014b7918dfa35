// All attempts of one policy at one prompt: the cards, what they say together, and the button that takes a step.

import { post, stream } from "./api.js";
import { Attempt, tokenSpan } from "./attempts.js";
import { find, make, number, percent, replace } from "./dom.js";

export class Column {
  // `page` has: fail(error), open() (is thinking unfolded?), algorithms, changed(policy) after a step, ask()
  constructor(page, policy, rate) {
    this.page = page;
    this.policy = policy;
    this.attempts = [];
    this.group = null;
    this.cards = make("div", { class: "cards" });
    this.tiles = make("div", { class: "tiles" });
    this.strip = make("div", { class: "strip", "aria-label": "length of each attempt" });
    this.said = make("p", { class: "said", role: "status" });
    this.algorithm = make("select", { "aria-label": "algorithm", onchange: () => this.showAdvantages() },
      ...page.algorithms.map((name) => make("option", { value: name }, name)));
    this.algorithm.value = page.algorithm;
    this.rate = make("input", { type: "number", min: "0", max: "1", step: "any", value: String(rate), "aria-label": "learning rate" });
    this.step = make("button", { type: "button", class: "step", onclick: () => this.takeStep() }, "Take a policy-gradient step");
    this.again = make("button", { type: "button", onclick: () => page.ask() }, "Ask again");
    this.reset = make("button", { type: "button", hidden: true, onclick: () => this.forget() }, "Reset");
    this.learn = make("div", { class: "row learn" }, make("label", {}, "algorithm", this.algorithm), make("label", {}, "rate", this.rate),
      this.step, this.again, this.reset);
    this.panel = make("section", { class: "group", hidden: true, "aria-label": "the group" }, this.tiles, this.strip, this.learn, this.said);
    this.title = make("h2", {}, policy);
    this.prompt = make("details", { class: "prompt-shown", hidden: true });
    this.element = make("section", { class: "column", "aria-label": `attempts of ${policy}` }, this.title, this.prompt, this.panel, this.cards);
  }

  async run(fields, signal) {
    try {
      await stream("/api/ask", { ...fields, model: this.policy }, signal, (line) => this.take(line));
    } catch (error) {
      if (error.name !== "AbortError") throw error;
    } finally {
      this.attempts.forEach((attempt) => attempt.stopped());
    }
  }

  take(line) {
    if (line.type === "start") this.start(line);
    else if (line.type === "tokens") {
      line.rows.forEach((row) => this.attempts[row.row].add(row));
      this.drawStrip();
    } else if (line.type === "verdict") {
      this.attempts[line.row].judge(line, this.page.open());
      this.drawStrip();
      this.page.judged?.();
    } else if (line.type === "group") this.end(line);
    else if (line.type === "error") this.page.fail(new Error(line.error));
  }

  start(line) {
    this.attempts = Array.from({ length: line.attempts }, (_, row) => new Attempt(row));
    replace(this.cards, ...this.attempts.map((attempt) => attempt.card));
    this.promptTokens = line.ids.map((id, i) => ({ id, piece: line.pieces[i] }));
    this.drawPrompt();
    this.panel.hidden = false;
    this.learn.hidden = true;
  }

  drawPrompt() {
    const box = make("div", { class: "tokens" }, ...this.promptTokens.map(tokenSpan));
    replace(this.prompt, make("summary", {}, `the prompt, ${this.promptTokens.length} tokens`), box);
    this.prompt.hidden = false;
  }

  drawStrip() {
    const longest = Math.max(1, ...this.attempts.map((a) => a.tokens.length));
    if (this.strip.childElementCount !== this.attempts.length)
      replace(this.strip, ...this.attempts.map((a) => make("button", { type: "button", tabindex: "-1",
        onclick: () => a.card.scrollIntoView({ behavior: "smooth", block: "center" }) })));
    this.attempts.forEach((a, i) => {
      const bar = this.strip.children[i];
      bar.style.height = `${(46 * a.tokens.length) / longest}px`;
      bar.className = a.card.classList.contains("right") ? "right" : a.card.classList.contains("wrong") ? "wrong" : "";
      bar.title = `attempt ${i + 1}: ${a.tokens.length} tokens`;
    });
  }

  end(line) {
    this.group = line.group;
    const s = line.summary, n = s.attempts;
    const tile = (value, label) => make("div", { class: "tile" }, make("b", {}, value), make("span", {}, label));
    const ks = Object.keys(s).filter((key) => key.startsWith("pass@") && key !== "pass@1").map((key) => Number(key.slice(5))).sort((a, b) => a - b);
    const middle = ks.filter((k) => k < n).at(-1);
    replace(this.tiles, tile(`${s.right} of ${n}`, s.unknown ? `right, ${s.unknown} without a verdict` : "right"),
      "pass@1" in s ? tile(percent(s["pass@1"]), "pass@1") : null,
      middle ? tile(percent(s[`pass@${middle}`]), `pass@${middle}`) : null,
      n > 1 && `pass@${n}` in s ? tile(percent(s[`pass@${n}`]), `pass@${n}`) : null,
      `cons@${n}` in s ? tile(percent(s[`cons@${n}`]), `cons@${n}`) : null,
      tile(number(s["length/right"], 1), "tokens, right ones"), tile(number(s["length/wrong"], 1), "tokens, wrong ones"));
    this.learn.hidden = n < 2 || s.unknown === n;
    this.reset.hidden = !this.policy.includes("~");
    this.step.textContent = this.policy.includes("~") ? "Take one more step" : "Take a policy-gradient step";
    if (!this.learn.hidden) this.showAdvantages();
  }

  async showAdvantages() {
    this.page.algorithm = this.algorithm.value;
    try {
      const { advantages } = await post("/api/advantages", { group: this.group, algorithm: this.algorithm.value });
      const largest = Math.max(...advantages.map(Math.abs));
      this.attempts.forEach((attempt, i) => attempt.showAdvantage(advantages[i], largest));
    } catch (error) {
      this.page.fail(error);
    }
  }

  // A step in a copy: the first press makes the copy, later ones go on with it.
  async takeStep() {
    this.step.disabled = true;
    this.said.textContent = "learning…";
    try {
      const fields = { group: this.group, algorithm: this.algorithm.value, rate: Number(this.rate.value), model: this.copy ?? this.policy };
      const learned = await post("/api/step", fields);
      this.copy = learned.copy;
      this.attempts.forEach((attempt, i) => attempt.showChange(learned.before[i], learned.after[i]));
      this.said.textContent = `Step ${learned.steps}: ${learned.said}`;
      this.step.textContent = "Take one more step";
      this.reset.hidden = false;
      await this.page.changed(this, learned.copy);
    } catch (error) {
      this.said.textContent = "";
      this.page.fail(error);
    } finally {
      this.step.disabled = false;
    }
  }

  async forget() {
    const copy = this.copy ?? this.policy;
    try {
      await post("/api/reset", { model: copy });
    } catch (error) {
      this.page.fail(error);
    }
    this.copy = undefined;
    this.reset.hidden = true;
    this.said.textContent = "The copy is gone: the policy is as it was.";
    await this.page.changed(this, copy.split("~")[0]);
  }
}

export const results = () => find("results");
