// One attempt as a card: its tokens, thinking apart from the answer, and what is said of it.

import { make, number, replace } from "./dom.js";
import { hide, showToken } from "./tip.js";

const STEPS = [0.02, 0.1, 0.25, 0.5, 0.75, 0.92]; // a token's probability -> class p0 (unlikely) ... p5, none (sure)
export const view = { ids: false };

export function colourClass(p) {
  const place = STEPS.findIndex((step) => p < step);
  return place < 0 ? "" : `p${place}`;
}

export function legend() {
  const labels = ["<2%", "10", "25", "50", "75", "92"];
  return labels.map((text, i) => make("i", { class: `p${i}` }, text));
}

const shown = (token) => (view.ids ? String(token.id) : token.piece);

export function tokenSpan(token) {
  const span = make("span", { class: "t" });
  span.textContent = shown(token);
  const p = token.logprob === undefined ? 1 : Math.exp(token.logprob);
  const colour = colourClass(p);
  if (colour) span.classList.add(colour);
  if (token.behaviour) span.classList.add("m");
  token.span = span;
  span.token = token;
  return span;
}

// A box of tokens: hover shows one, and with the arrow keys the focused box goes from one to the next.
export function tokenBox(kind) {
  const box = make("div", { class: `tokens ${kind}`, tabindex: "0" });
  let here = null;
  const go = (span) => {
    here?.classList.remove("here");
    here = span;
    if (span) {
      span.classList.add("here");
      showToken(span.token, span);
    } else hide();
  };
  box.addEventListener("mouseover", (e) => e.target.token && showToken(e.target.token, e.target));
  box.addEventListener("mouseout", hide);
  box.addEventListener("click", (e) => e.target.token && go(e.target));
  box.addEventListener("blur", () => go(null));
  box.addEventListener("keydown", (e) => {
    if (e.key === "Escape") go(null);
    if (e.key !== "ArrowRight" && e.key !== "ArrowLeft") return;
    e.preventDefault();
    const next = here ? (e.key === "ArrowRight" ? here.nextSibling : here.previousSibling) : box.firstChild;
    if (next) go(next);
  });
  return box;
}

export class Attempt {
  constructor(row) {
    this.row = row;
    this.tokens = [];
    this.verdict = null;
    this.mark = make("span", { class: "verdict" }, "…");
    this.count = make("span", { class: "count" }, "0 tokens");
    this.thinking = tokenBox("think");
    this.final = tokenBox("final");
    this.final.hidden = true;
    this.summary = make("summary", {}, "thinks");
    this.fold = make("details", { open: true }, this.summary, this.thinking);
    this.why = make("p", { class: "why" });
    this.push = make("div", { class: "push", hidden: true });
    this.change = make("p", { class: "why change" });
    this.change.hidden = true;
    this.card = make(
      "article",
      { id: `attempt-${Math.random().toString(36).slice(2)}`, "aria-label": `attempt ${row + 1}` },
      make("h3", {}, make("b", {}, `${row + 1}`), this.mark, this.count),
      this.fold,
      this.final,
      this.why,
      this.push,
      this.change,
    );
  }

  add(line) {
    line.ids.forEach((id, i) => {
      const token = { id, piece: line.pieces[i], logprob: line.logprobs[i], tops: line.tops[i] };
      this.tokens.push(token);
      this.thinking.append(tokenSpan(token));
    });
    this.count.textContent = `${this.tokens.length} tokens`;
  }

  // The verdict is known: the answer moves out of the thinking, behaviours are marked.
  judge(line, open) {
    this.verdict = line;
    const right = line.correct === null ? null : line.correct > 0;
    this.mark.textContent = right === null ? "?" : right ? "✓ right" : "✗ wrong";
    if (right !== null) this.card.classList.add(right ? "right" : "wrong");
    this.why.textContent = line.why;
    let start = 0;
    const places = this.tokens.map((token) => {
      const place = [start, (start += token.piece.length)];
      return place;
    });
    const behaviourAt = ([from, to]) => line.marks.filter(([a, b]) => a < to && b > from).map((m) => m[2]);
    this.tokens.forEach((token, i) => {
      token.behaviour = [...new Set(behaviourAt(places[i]))].join(", ");
    });
    this.split = this.tokens.findIndex((_, i) => places[i][1] > line.final && line.final < start);
    this.draw();
    this.fold.open = open;
  }

  draw() {
    const split = this.split === undefined || this.split < 0 ? this.tokens.length : this.split;
    replace(this.thinking, ...this.tokens.slice(0, split).map(tokenSpan));
    replace(this.final, ...this.tokens.slice(split).map(tokenSpan));
    if (this.final.firstChild) this.final.firstChild.textContent = this.final.firstChild.textContent.trimStart();
    this.final.hidden = split === this.tokens.length;
    this.fold.hidden = split === 0 && this.tokens.length > 0;
    this.summary.textContent = this.verdict ? `thinks, ${split} tokens` : "thinks";
  }

  // What an algorithm would push, and how hard.
  showAdvantage(advantage, largest) {
    const bar = make("i", { class: advantage >= 0 ? "up" : "down" });
    bar.style.width = `${largest ? (50 * Math.abs(advantage)) / largest : 0}%`;
    const label = `advantage ${advantage > 0 ? "+" : ""}${number(advantage)}`;
    replace(this.push, make("span", { class: "label" }, label), make("span", { class: "bar" }, bar));
    this.push.hidden = false;
  }

  showChange(before, after) {
    const factor = Math.exp(after - before);
    const shownFactor = factor >= 1 ? `${number(factor, factor < 1.1 ? 3 : 1)} × likelier` : `${number(1 / factor, factor > 0.9 ? 3 : 1)} × less likely`;
    this.change.textContent = `log-probability ${number(before, 1)} → ${number(after, 1)}: ${shownFactor}`;
    this.change.hidden = false;
  }

  stopped() {
    if (!this.verdict) this.mark.textContent = "stopped";
  }
}
