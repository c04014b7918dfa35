// The box beside a token: its id, its probability, and what else could have stood there.

import { find, make, replace } from "./dom.js";

const exact = (logprob) => {
  const p = Math.exp(logprob);
  return p > 0.001 ? `${(100 * p).toFixed(1)} %` : p.toExponential(1);
};
const visible = (text) => (text === "" ? "(part of a character)" : text.replaceAll("\n", "⏎").replaceAll(" ", "␣"));

export function hide() {
  find("tip").hidden = true;
}

export function showToken(token, span) {
  const tip = find("tip");
  const rows = (token.tops ?? []).map(([text, logprob]) =>
    make("tr", { class: Math.abs(logprob - token.logprob) < 1e-3 && text.trim() === token.piece.trim() ? "chosen" : "" },
      make("td", {}, make("code", {}, visible(text))), make("td", {}, exact(logprob))));
  const about = token.logprob === undefined ? `id ${token.id}` : `id ${token.id}, probability ${exact(token.logprob)}`;
  replace(tip, make("div", {}, make("code", {}, visible(token.piece))), make("div", {}, about),
    token.behaviour ? make("div", {}, `behaviour: ${token.behaviour}`) : null,
    rows.length ? make("table", {}, make("tbody", {}, ...rows)) : null);
  tip.hidden = false;
  const at = span.getBoundingClientRect();
  const box = tip.getBoundingClientRect();
  const left = Math.min(Math.max(8, at.left), innerWidth - box.width - 8);
  const below = at.bottom + 6 + box.height < innerHeight;
  tip.style.left = `${left}px`;
  tip.style.top = `${below ? at.bottom + 6 : Math.max(8, at.top - box.height - 6)}px`;
}
