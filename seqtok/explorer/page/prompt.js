// A prompt drawn token by token; any token can be gone back to, and the rest drawn again.

import { clearProblem, lines, Newest } from "./api.js";
import { get, make, slider, tokens } from "./dom.js";

export function promptTab(about) {
  const newest = new Newest();
  const frames = []; // frames[k - 1]: the picture of k tokens
  let drawn = null; // what was asked, and the latents so far
  let back = null; // the token that the user has gone back to; null: the newest is shown
  const kept = slider("prompt-k", about.tokens, 1, goBack);
  get("prompt-guidance").value = about.generator.guidance;
  get("prompt-temperature").value = about.generator.temperature;

  const thumbs = shownLengths(about.tokens).map((k) => {
    const image = make("img", { class: "picture", alt: "" });
    const figure = make("figure", { onclick: () => goBack(k), "aria-hidden": "true" }, image, make("figcaption", {}, `${k}`));
    get("prompt-film").append(figure);
    return { k, image, figure };
  });

  function goBack(k) {
    back = Math.max(1, Math.min(k, frames.length));
    kept.value = k;
    show(k);
  }

  function show(k) {
    const shown = Math.min(k, frames.length);
    if (!shown) return;
    get("prompt-picture").src = frames[shown - 1];
    get("prompt-picture").alt = `the drawing after ${tokens(shown)}`;
    get("prompt-caption").textContent = `After ${tokens(shown)}`;
    for (const { k: own, image, figure } of thumbs) {
      if (frames[own - 1]) image.src = frames[own - 1];
      else image.removeAttribute("src");
      figure.classList.toggle("now", own === shown);
    }
    const can = drawn && back && back < about.tokens;
    get("prompt-redraw").disabled = !can;
    get("prompt-redraw").textContent = can ? `Keep ${tokens(back)}, redraw the rest` : "Go back to a token to redraw from there";
  }

  function draw(asked, keep) {
    clearProblem();
    frames.length = keep;
    const before = back;
    busy(true);
    get("prompt-warning").hidden = true;
    get("prompt-stage").hidden = false;
    newest.run(async (signal) => {
      try {
        for await (const line of lines("draw", { ...asked, watch: true }, signal)) {
          if (line.warning) tell(line.warning);
          if (!line.image) continue;
          frames[line.k - 1] = line.image;
          drawn = { ...asked, latents: line.latents };
          if (back === before) kept.value = line.k; // unless the user goes back meanwhile
          show(kept.value);
        }
      } finally {
        if (!signal.aborted) busy(false);
      }
    });
  }

  function busy(is) {
    get("prompt-stop").disabled = !is;
    get("prompt-draw").textContent = is ? "Draw anew" : "Draw";
    get("prompt-stage").setAttribute("aria-busy", is && !frames.length);
  }

  function tell(warning) {
    get("prompt-warning").textContent = `Warning: ${warning}`;
    get("prompt-warning").hidden = false;
  }

  get("prompt-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const number = (name) => Number(get(`prompt-${name}`).value);
    const prompt = get("prompt-text").value;
    drawn = back = null;
    draw({ prompt, seed: number("seed"), guidance: number("guidance"), temperature: number("temperature") }, 0);
  });
  get("prompt-stop").addEventListener("click", () => {
    newest.stop();
    busy(false);
  });
  get("prompt-redraw").addEventListener("click", () => {
    const seed = Number(get("prompt-seed").value) + 1;
    get("prompt-seed").value = seed;
    draw({ ...drawn, seed, k: back }, back);
  });
}

// Every token of a short sequence; of a long one 1, 2, 4, ... and the last.
function shownLengths(length) {
  if (length <= 32) return Array.from({ length }, (_, i) => i + 1);
  const powers = [];
  for (let k = 1; k < length; k *= 2) powers.push(k);
  return [...powers, length];
}
