// Elements by name, text and attributes. Text is only ever text: nothing here reads a string as HTML.

export const find = (id) => document.getElementById(id);

export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") element.className = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function replace(element, ...children) {
  element.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
}

export const number = (x, digits = 2) => (x === null || x === undefined ? "–" : Number(x).toFixed(digits));
export const percent = (x) => (x === null || x === undefined ? "–" : `${(100 * x).toFixed(x > 0.0995 || x === 0 ? 0 : 1)} %`);
