(() => {
  const { byId, state } = page;
  if (!state || !state.cases.length) return;
  const section = byId("cases");
  const articles = [...section.querySelectorAll("article.case")];
  const thumbs = [...section.querySelectorAll(".thumbs button")];
  const slider = byId("eps");
  const methods = byId("method-of");
  let current = 0;
  let step = Number(section.dataset.step);
  let shown = articles.map((_, i) => i);
  let settled = false;  // from the reader's first move on, the address follows

  // At the chosen step: true where the model withstands, false where it errs, null where unknown.
  const stands = (one) => (state.epsilons.length ? one.attacked[step] : one.clean);
  page.eps = () => (state.epsilons.length ? parseEps(state.epsilons[step]) : Infinity);
  const parseEps = (text) => { const [a, b] = text.split("/"); return b ? a / b * 1.000001 : a * 1.005; };

  page.narrow = (cases) => {
    shown = articles.map((_, i) => i).filter((i) => cases.has(i));
    articles.forEach((article, i) => article.classList.toggle("out", !cases.has(i)));
    thumbs.forEach((thumb, i) => { thumb.hidden = !cases.has(i); });
    byId("nothing").hidden = shown.length > 0;
    show(cases.has(current) ? current : shown[0]);
  };

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
    address();
  }

  page.open = (index, scroll) => {
    settled = true;
    if (!shown.includes(index)) page.clear();
    show(index);
    if (scroll) byId("position").scrollIntoView({ block: "start" });
  };

  function walk(by) {
    if (!shown.length) return;
    settled = true;
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
    page.filter();
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

  function setMethod(value) {
    const place = (Number(value) + state.methods.length) % state.methods.length;
    section.dataset.method = place;
    if (methods) methods.value = place;
    address();
  }

  function setOutline(on) {
    section.dataset.outline = on ? "on" : "off";
    byId("outline").checked = on;
  }

  function address() {
    if (!settled) return;
    const told = new URLSearchParams();
    if (state.epsilons.length) told.set("eps", state.epsilons[step]);
    if (state.methods.length > 1) told.set("map", state.methods[Number(section.dataset.method)]);
    history.replaceState(null, "", `#case-${current + 1}&${told}`);
  }

  const moved = (act) => () => { settled = true; act(); };
  Object.assign(page.keys, {
    ArrowLeft: () => walk(-1),
    ArrowRight: () => walk(1),
    "-": moved(() => setStep(step - 1)),
    "+": moved(() => setStep(step + 1)),
    "=": moved(() => setStep(step + 1)),
    m: () => setMap(section.dataset.map === "over" ? "alone" : "over"),
    n: moved(() => setMethod(Number(section.dataset.method) + 1)),
    o: () => { if (byId("outline")) setOutline(!byId("outline").checked); },
  });
  thumbs.forEach((thumb, i) => thumb.addEventListener("click", () => page.open(i)));
  byId("previous").addEventListener("click", () => walk(-1));
  byId("next").addEventListener("click", () => walk(1));
  if (slider) slider.addEventListener("input", moved(() => setStep(Number(slider.value))));
  if (methods) methods.addEventListener("change", moved(() => setMethod(methods.value)));
  section.querySelectorAll('input[name="map"]').forEach((input) => input.addEventListener("change", () => setMap(input.value)));
  if (byId("outline")) byId("outline").addEventListener("change", () => setOutline(byId("outline").checked));

  function follow() {
    const asked = /^#case-(\d+)(?:&(.*))?$/.exec(location.hash);
    if (!asked || asked[1] < 1 || asked[1] > articles.length) return;
    const told = new URLSearchParams(asked[2] || "");
    const eps = state.epsilons.indexOf(told.get("eps"));
    const map = state.methods.indexOf(told.get("map"));
    if (eps >= 0) setStep(eps);
    if (map >= 0) setMethod(map);
    page.open(Number(asked[1]) - 1, true);
  }
  window.addEventListener("hashchange", follow);
  mark();
  page.filter();
  follow();
})();
