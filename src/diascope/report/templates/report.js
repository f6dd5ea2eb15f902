"use strict";
const page = {};
(() => {
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);
  page.byId = byId;
  page.state = byId("state") && JSON.parse(byId("state").textContent);

  const theme = byId("theme");
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const named = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; named(); });
  system.addEventListener("change", named);
  named();

  const help = byId("help");
  page.help = () => { if (help.open) help.close(); else help.showModal(); };
  byId("ask").addEventListener("click", page.help);
  help.addEventListener("click", (event) => { if (event.target === help) help.close(); });

  const ofModel = byId("finding-model");
  if (ofModel) {
    ofModel.addEventListener("change", () => {
      let shown = 0;
      document.querySelectorAll(".finding").forEach((finding) => {
        const models = finding.dataset.models.split(" ").filter(Boolean);
        finding.hidden = Boolean(ofModel.value) && models.length > 0 && !models.includes(ofModel.value);
        shown += finding.hidden ? 0 : 1;
      });
      byId("finding-count").textContent = ofModel.value ? `${shown} findings, those on the data among them` : "";
    });
  }

  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    opened.forEach((each) => { each.open = true; });
  });
  window.addEventListener("afterprint", () => opened.forEach((each) => { each.open = false; }));

  page.keys = { "?": page.help };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, select, textarea, .scroll")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (help.open && key !== "?") return;
    const act = page.keys[key];
    if (!act) return;
    event.preventDefault();
    act();
  });
})();
