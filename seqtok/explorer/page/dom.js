// Elements from names, attributes and children; texts are always texts, never markup.

export const get = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export const tokens = (k) => (k === 1 ? "1 token" : `${k} tokens`);

// A slider with the number beside it; `changed` is told the number whenever it is another.
export function slider(id, length, value, changed) {
  const range = get(id);
  range.max = length;
  range.value = value;
  const say = () => {
    get(`${id}-says`).textContent = `${range.value} of ${length}`;
  };
  range.addEventListener("input", () => {
    say();
    changed(Number(range.value));
  });
  say();
  return {
    get value() {
      return Number(range.value);
    },
    set value(k) {
      range.value = k;
      say();
    },
  };
}
