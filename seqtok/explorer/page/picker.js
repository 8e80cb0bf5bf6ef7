// Choosing a picture: dropped, from a file, a drawn scene, or a held-out one. `opened` gets what the server says of it.

import { ask, clearProblem, Newest } from "./api.js";
import { make } from "./dom.js";

export function picker(place, about, name, opened) {
  const newest = new Newest();
  const picture = make("img", { class: "picture", alt: "" });
  const canvas = make("canvas", { "aria-hidden": "true" });
  const came = make("ul", { class: "came" });
  const seen = make("div", { class: "seen", hidden: true }, picture, canvas);

  const open = (what, request) =>
    newest.run(async (signal) => {
      clearProblem();
      place.setAttribute("aria-busy", "true");
      try {
        const found = await request(signal);
        picture.src = found.image;
        picture.alt = `${name}: ${what}, as the tokenizer reads it`;
        came.replaceChildren(...[...found.captions, ...found.notes].map((text) => make("li", {}, text)));
        seen.hidden = false;
        canvas.width = canvas.height = 0;
        opened(found);
      } finally {
        if (!signal.aborted) place.removeAttribute("aria-busy");
      }
    });
  const openFile = (file) => file && open(file.name, (signal) => ask("picture", file, signal));

  const input = make("input", { type: "file", accept: "image/*,.heic,.jxl,.jp2,.tif,.tiff" });
  input.addEventListener("change", () => {
    openFile(input.files[0]);
    input.value = ""; // the same file may be chosen again
  });
  const drop = make("label", { class: "drop" }, "Drop a picture here, or choose a file", input);
  drop.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    openFile(event.dataTransfer.files[0]);
  });

  const numbered = (words, path, most) => {
    const number = make("input", { type: "number", min: 0, max: most, step: 1, value: 0, "aria-label": `number of the ${words}` });
    const go = () => open(`${words} ${number.value}`, (signal) => ask(`${path}/${Number(number.value)}`, undefined, signal));
    number.addEventListener("change", go);
    const next = () => {
      if (!seen.hidden) number.value = (Number(number.value) + 1) % (most + 1);
      go();
    };
    place.append(make("div", { class: "pick" }, make("button", { type: "button", onclick: next }, `Next ${words}`), number));
    return (value) => {
      number.value = value;
      go();
    };
  };

  place.append(drop);
  const held = about.held_out && numbered("held-out one", "example", about.held_out.count - 1);
  const scene = numbered("drawn scene", "scene", 2 ** 31 - 1);
  place.append(seen, came);
  return { openNumber: held || scene, canvas };
}
