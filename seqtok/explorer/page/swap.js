// Two pictures, the first k tokens of each given to the other.

import { ask, Latest } from "./api.js";
import { get, slider, tokens } from "./dom.js";
import { picker } from "./picker.js";

export function swapTab(about) {
  const chosen = { a: null, b: null };
  const latest = new Latest();
  const kept = slider("swap-k", about.tokens, Math.ceil(about.tokens / 4), show);

  function show() {
    if (!chosen.a || !chosen.b) return;
    latest.run(async (overtaken) => {
      const k = kept.value;
      const { images } = await ask("swap", { first: chosen.a.latents, second: chosen.b.latents, k });
      if (overtaken()) return;
      [["swap-one", "B", "A"], ["swap-two", "A", "B"]].forEach(([id, begins, ends], number) => {
        const words = `First ${tokens(k)} of ${begins}, the rest of ${ends}`;
        get(id).src = images[number];
        get(id).alt = words;
        get(id).nextElementSibling.textContent = words;
      });
    });
  }

  const pickers = ["a", "b"].map((name) =>
    picker(get(`swap-${name}`), about, `picture ${name.toUpperCase()}`, (found) => {
      chosen[name] = found;
      show();
    }),
  );
  return () => pickers.forEach(({ openNumber }, number) => chosen[number ? "b" : "a"] || openNumber(number));
}
