// The choice of one policy: where it comes from, and a slider over its checkpoints.

import { make, replace } from "./dom.js";

export class Choice {
  constructor(label, optional, changed) {
    this.optional = optional;
    this.sources = [];
    this.copies = [];
    this.source = make("select", { "aria-label": `${label}: run or model`, onchange: () => this.chooseSource() });
    this.slider = make("input", { type: "range", min: "0", max: "0", step: "1", "aria-label": `${label}: checkpoint`,
      oninput: () => { this.show(); this.changed(); } });
    this.output = make("output", {}, "");
    this.changed = changed;
    this.element = make("div", { class: "policy" }, make("label", {}, label, this.source), this.slider, this.output);
  }

  names() {
    if (this.source.value === "~") return this.copies;
    return this.sources.find((s) => s.name === this.source.value)?.policies ?? [];
  }

  get value() {
    return this.names()[Number(this.slider.value)] ?? null;
  }

  get about() {
    const name = this.value?.split("/")[0];
    return this.sources.find((s) => s.name === name) ?? null;
  }

  chooseSource() {
    const names = this.names();
    this.slider.max = String(Math.max(0, names.length - 1));
    this.slider.value = this.slider.max;
    this.show();
    this.changed();
  }

  show() {
    const value = this.value;
    this.output.textContent = value ? value.slice(value.indexOf("/") + 1) : this.source.value ? "no checkpoint yet" : "";
    this.slider.hidden = this.names().length < 2;
  }

  // What the server has now. The choice stays what it was, where that is still there.
  update(sources, copies, wanted) {
    this.sources = sources;
    this.copies = copies;
    const before = wanted ?? this.value;
    const kept = wanted ? null : this.source.value;
    const options = sources.map((s) => make("option", { value: s.name }, s.name));
    if (copies.length) options.push(make("option", { value: "~" }, "changed copies"));
    if (this.optional) options.unshift(make("option", { value: "" }, "nothing"));
    replace(this.source, ...options);
    const home = before === null ? kept : before.includes("~") ? "~" : before.split("/")[0];
    this.source.value = home ?? (this.optional ? "" : sources[0]?.name ?? "");
    if (this.source.selectedIndex < 0) this.source.selectedIndex = 0;
    const names = this.names();
    this.slider.max = String(Math.max(0, names.length - 1));
    const place = names.indexOf(before);
    this.slider.value = String(place < 0 ? names.length - 1 : place);
    this.show();
  }
}
