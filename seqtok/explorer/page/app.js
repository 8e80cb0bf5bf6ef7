// The page: what can be asked here, and the tabs.

import { ask, report } from "./api.js";
import { get, make, tokens } from "./dom.js";
import { pictureTab } from "./picture.js";
import { promptTab } from "./prompt.js";
import { swapTab } from "./swap.js";

const tabs = [...document.querySelectorAll('[role="tab"]')];
const firstTime = new Map(); // tab -> what is done when it is shown first

function choose(tab, focus = false) {
  for (const other of tabs) {
    other.setAttribute("aria-selected", other === tab);
    other.tabIndex = other === tab ? 0 : -1;
    get(other.getAttribute("aria-controls")).hidden = other !== tab;
  }
  const begin = firstTime.get(tab.id);
  firstTime.delete(tab.id);
  if (begin) begin();
  if (focus) tab.focus();
  history.replaceState(null, "", `#${tab.getAttribute("aria-controls")}`);
}

for (const tab of tabs) {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", (event) => {
    const shown = tabs.filter((other) => !other.hidden);
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -shown.indexOf(tab), End: -shown.indexOf(tab) - 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    choose(shown[(shown.indexOf(tab) + step + shown.length) % shown.length], true);
  });
}

function showReport() {
  get("report").append(make("iframe", { src: "/report", title: "Report of the judge", sandbox: true }));
}

try {
  const about = await ask("about");
  const parts = [`${tokens(about.tokens)} of ${about.channels} channels`, `${about.size} × ${about.size} pixels`];
  if (!about.generator) parts.push("no sequence model: nothing is drawn");
  get("about").textContent = parts.join(" · ");
  get("tab-prompt").hidden = !about.generator;
  get("tab-report").hidden = !about.report;
  pictureTab(about);
  firstTime.set("tab-swap", swapTab(about));
  firstTime.set("tab-report", showReport);
  if (about.generator) promptTab(about);
  const asked = tabs.find((tab) => !tab.hidden && `#${tab.getAttribute("aria-controls")}` === location.hash);
  choose(asked || tabs[0]);
} catch (error) {
  get("about").textContent = "";
  report(error);
}
