// One picture: its prefixes decoded and drawn, what they say, and where each token looks.

import { ask, clearProblem, Latest, lines, Newest, report } from "./api.js";
import { get, make, slider, tokens } from "./dom.js";
import { picker } from "./picker.js";

export function pictureTab(about) {
  let opened = null;
  let seed = 0;
  const prefixes = new Map(); // k -> answer, of the picture and the captions that are compared with
  const latest = new Latest();
  const drawings = [new Newest(), new Newest()];
  const figures = [...document.querySelectorAll("#look .drawn")];

  const source = picker(get("look-picker"), about, "the picture", (found) => {
    opened = found;
    prefixes.clear();
    get("look-caption").textContent = "";
    get("look-heat").disabled = !found.looks;
    show();
  });
  const kept = slider("look-k", about.tokens, Math.min(4, about.tokens), show);

  function show() {
    const k = kept.value;
    document.querySelectorAll("#look .k").forEach((place) => (place.textContent = k));
    document.querySelector("#look .tokens").textContent = k === 1 ? "token" : "tokens";
    if (!opened) return;
    showHeat(k);
    showPrefix(k);
    if (about.generator) drawBoth(k);
  }

  function showPrefix(k) {
    const picture = opened;
    latest.run(async (overtaken) => {
      const captions = ownCaptions();
      if (!prefixes.has(k)) {
        const answer = await ask("prefix", { latents: picture.latents, k, captions });
        if (picture !== opened) return;
        prefixes.set(k, answer);
      }
      if (overtaken() || k !== kept.value) return;
      const { image, ...says } = prefixes.get(k);
      get("look-decoded").src = image;
      get("look-decoded").alt = `decoded from the first ${tokens(k)}`;
      showSays(says);
    });
  }

  function showSays({ written, captioned, nearest }) {
    const parts = [];
    const add = (title, ...said) => parts.push(make("dt", {}, title), make("dd", {}, ...said));
    if (written !== null) add("The tokenizer writes", written || "nothing yet");
    if (captioned !== null) add("The sequence model writes", captioned || "nothing");
    if (nearest) {
      const items = nearest.map(({ caption, score }) => {
        const item = make("li", {}, make("span", { class: "score" }, score.toFixed(2)), make("span", {}, caption));
        item.style.setProperty("--score", Math.max(score, 0));
        return item;
      });
      add("Nearest captions, by cosine", make("ol", { class: "near" }, ...items));
    }
    if (!parts.length) parts.push(make("dd", {}, about.retrieves ? "Type captions below to compare with." : "This tokenizer was trained without captions."));
    get("look-says").replaceChildren(...parts);
  }

  function drawBoth(k) {
    figures.forEach((figure, number) => {
      const own = seed + number;
      const [image, text] = [figure.querySelector("img"), figure.querySelector("figcaption")];
      figure.setAttribute("aria-busy", "true");
      text.textContent = `Drawn from ${tokens(k)}, seed ${own}`;
      drawings[number].run(async (signal) => {
        const asked = { latents: opened.latents, k, seed: own };
        try {
          for await (const line of lines("draw", asked, signal)) {
            if (!line.image) continue;
            image.src = line.image;
            image.alt = `drawn from the first ${tokens(k)}, seed ${own}`;
          }
        } finally {
          if (!signal.aborted) figure.removeAttribute("aria-busy");
        }
      }, 150);
    });
  }

  function showHeat(k) {
    const shown = opened.looks && get("look-heat").checked;
    source.canvas.hidden = !shown;
    if (!shown) return;
    const [rows, columns] = opened.looks.grid;
    const bytes = Uint8Array.from(atob(opened.looks.maps), (letter) => letter.charCodeAt(0));
    const own = bytes.subarray((k - 1) * rows * columns, k * rows * columns);
    source.canvas.width = columns;
    source.canvas.height = rows;
    const pixels = new ImageData(columns, rows);
    own.forEach((value, place) => pixels.data.set([255, 110, 0, Math.round(0.75 * value)], 4 * place));
    source.canvas.getContext("2d").putImageData(pixels, 0, 0);
  }

  function ownCaptions() {
    const typed = get("look-captions").value.split("\n").map((line) => line.trim()).filter(Boolean);
    return typed.length ? typed : null;
  }

  get("look-heat").addEventListener("change", () => opened && showHeat(kept.value));
  get("look-captions").addEventListener("change", () => {
    prefixes.clear();
    if (opened) showPrefix(kept.value);
  });
  get("look-own").hidden = !about.retrieves;
  get("look-own").open = about.retrieves && !about.captions;
  get("look-again-row").hidden = !about.generator;
  figures.forEach((figure) => (figure.hidden = !about.generator));
  get("look-again").addEventListener("click", () => {
    seed += 2;
    if (opened) drawBoth(kept.value);
  });
  if (about.generator && about.generator.captions) captionForm(about.generator, () => opened, kept);
  show();
  source.openNumber(0);
}

function captionForm({ captions_from_prefixes: fromPrefixes, caption_levels: levels }, opened, kept) {
  const level = get("look-level");
  get("look-ask").hidden = false;
  if (levels > 1) {
    const named = (n) => (n === 0 ? "coarse" : n === levels - 1 ? "fine" : `${n}`);
    for (let n = levels - 1; n >= 0; n--) level.append(make("option", { value: n }, named(n)));
    level.hidden = level.previousElementSibling.hidden = false;
  }
  get("look-ask").addEventListener("submit", async (event) => {
    event.preventDefault();
    const picture = opened();
    if (!picture) return;
    clearProblem();
    const k = fromPrefixes ? kept.value : Number(get("look-k").max);
    const said = get("look-caption");
    const button = event.submitter || get("look-ask").querySelector("button");
    button.disabled = true;
    said.textContent = "Writing…";
    try {
      const asked = { latents: picture.latents, k, candidates: Number(get("look-candidates").value) };
      if (levels > 1) asked.level = Number(level.value);
      const { caption } = await ask("caption", asked);
      said.textContent = picture === opened() ? `From ${tokens(k)}: ${caption}` : "";
    } catch (error) {
      said.textContent = "";
      report(error);
    }
    button.disabled = false;
  });
}
