"use strict";
(() => {
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);

  const theme = byId("theme");
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const named = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; named(); });
  system.addEventListener("change", named);
  named();

  const section = byId("cases");
  const state = byId("state") && JSON.parse(byId("state").textContent);
  if (!state) return;
  const articles = [...section.querySelectorAll("article.case")];
  const thumbs = [...section.querySelectorAll(".thumbs button")];
  const slider = byId("eps");
  let current = 0;
  let step = Number(section.dataset.step);
  let shown = articles.map((_, i) => i);

  // At the chosen step: true where the model withstands, false where it errs, null where unknown.
  const stands = (one) => (state.epsilons.length ? one.attacked[step] : one.clean);
  const broken = (one, k) => one.clean[k] && stands(one)[k] === false;
  const tests = {
    "any-wrong": (one) => one.clean.includes(false),
    "any-broken": (one) => one.clean.some((_, k) => broken(one, k)),
    "none-broken": (one) => one.clean.every((right, k) => right && stands(one)[k] === true),
    "differ": (one) => new Set(stands(one)).size > 1,
  };

  function fits(one) {
    const label = byId("filter-class").value;
    const status = byId("filter-status").value;
    if (label && one.label !== label) return false;
    if (status.startsWith("broken-")) return broken(one, Number(status.slice(7)));
    return !status || tests[status](one);
  }

  function filter() {
    shown = state.cases.flatMap((one, i) => (fits(one) ? [i] : []));
    articles.forEach((article, i) => article.classList.toggle("out", !shown.includes(i)));
    thumbs.forEach((thumb, i) => { thumb.hidden = !shown.includes(i); });
    byId("nothing").hidden = shown.length > 0;
    show(shown.includes(current) ? current : shown[0]);
  }

  function show(index) {
    if (index !== undefined) current = index;
    articles.forEach((article, i) => article.classList.toggle("current", i === current && shown.includes(i)));
    thumbs.forEach((thumb, i) => {
      if (i === current) thumb.setAttribute("aria-current", "true");
      else thumb.removeAttribute("aria-current");
    });
    const place = shown.indexOf(current) + 1;
    const rest = shown.length < articles.length ? ` that fit, ${articles.length} in all` : "";
    byId("position").textContent = `Case ${place} of ${shown.length}${rest}`;
  }

  function walk(by) {
    if (!shown.length) return;
    show(shown[(shown.indexOf(current) + by + shown.length) % shown.length]);
  }

  function setStep(value) {
    if (!state.epsilons.length) return;
    step = Math.min(Math.max(value, 0), state.epsilons.length - 1);
    section.dataset.step = step;
    if (slider) {
      slider.value = step;
      slider.setAttribute("aria-valuetext", `eps ${state.epsilons[step]}`);
      byId("eps-now").textContent = state.epsilons[step];
    }
    mark();
    filter();
  }

  function mark() {
    thumbs.forEach((thumb, i) => {
      const signs = stands(state.cases[i]).map((right) => (right === null ? "–" : right ? "✓" : "✗"));
      thumb.querySelector(".signs").replaceChildren(...signs.map((sign) => {
        const span = document.createElement("span");
        span.textContent = sign;
        return span;
      }));
      const words = signs.map((sign) => ({ "✓": "right", "✗": "wrong", "–": "not shown" })[sign]);
      thumb.setAttribute("aria-label", `Case ${i + 1}, ${state.cases[i].label}: ${words.join(", ")}`);
    });
  }

  function setMap(kind) {
    section.dataset.map = kind;
    section.querySelector(`input[name="map"][value="${kind}"]`).checked = true;
  }

  const keys = {
    ArrowLeft: () => walk(-1),
    ArrowRight: () => walk(1),
    "-": () => setStep(step - 1),
    "+": () => setStep(step + 1),
    "=": () => setStep(step + 1),
    m: () => setMap(section.dataset.map === "over" ? "alone" : "over"),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, select, textarea, .scroll")) return;
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  thumbs.forEach((thumb, i) => thumb.addEventListener("click", () => show(i)));
  byId("previous").addEventListener("click", () => walk(-1));
  byId("next").addEventListener("click", () => walk(1));
  byId("filter-class").addEventListener("change", filter);
  byId("filter-status").addEventListener("change", filter);
  if (slider) slider.addEventListener("input", () => setStep(Number(slider.value)));
  section.querySelectorAll('input[name="map"]').forEach((input) => input.addEventListener("change", () => setMap(input.value)));
  const outline = byId("outline");
  if (outline) outline.addEventListener("change", () => { section.dataset.outline = outline.checked ? "on" : "off"; });

  function follow() {
    const asked = /^#case-(\d+)$/.exec(location.hash);
    if (!asked || asked[1] < 1 || asked[1] > articles.length) return;
    byId("filter-class").value = byId("filter-status").value = "";
    filter();
    show(Number(asked[1]) - 1);
    articles[current].scrollIntoView();
  }
  window.addEventListener("hashchange", follow);
  mark();
  filter();
  follow();
})();
