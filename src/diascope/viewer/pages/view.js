"use strict";
(() => {
  const { draw, edge, make, number } = window.Plates;
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);
  const page = crypto.getRandomValues(new Uint32Array(4)).join("-");
  const MOST = 12;

  let info = null; // what the server says of its models
  const early = []; // files that came before the models were there
  let failed = false; // whether they will never be
  let image = null; // {id, image, thumb, number, label, ...}: the one that is shown
  let views = []; // of each model: what it makes of the image
  let attack = null; // {id, norm, steps, epsilons}
  let place = 0; // in the grid of epsilons
  const held = [], running = {};

  const theme = byId("theme"), system = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const named = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; named(); });
  system.addEventListener("change", named);
  named();

  function complain(words) {
    byId("alert").textContent = words;
    byId("alert").hidden = !words;
  }

  const GONE = "The server does not answer: it may have been stopped. Look at the terminal.";

  async function ask(path, options = {}) {
    let answer;
    try { answer = await fetch(path, { cache: "no-store", ...options }); } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error(GONE);
    }
    if (!answer.ok) {
      const found = await answer.json().catch(() => ({}));
      throw new Error(found.error || `The server answers with ${answer.status}.`);
    }
    return answer;
  }

  // Loading ---------------------------------------------------------------

  async function begin() {
    document.body.classList.add("waiting");
    for (;;) {
      let found;
      try { found = await (await ask("state")).json(); } catch (error) { failed = true; byId("what").textContent = ""; return complain(error.message); }
      if (found.state === "failed") { failed = true; byId("what").textContent = "The models could not be opened."; return complain(found.error); }
      if (found.state === "ready") { info = found; break; }
      await new Promise((go) => setTimeout(go, 400));
    }
    document.body.classList.remove("waiting");
    byId("file").disabled = false;
    const names = info.models.map((m) => m.name).join(", ");
    const few = info.classes.length <= 12 ? info.classes.join(", ") : `${info.classes.length} classes`;
    byId("what").textContent = `${names}: ${few}, at ${info.size} × ${info.size} pixels.`;
    byId("report").hidden = !info.report;
    byId("method").append(...info.methods.map((m) => new Option(m.replaceAll("_", " "), m)));
    byId("method").value = info.method;
    byId("target").append(...info.classes.map((c, k) => new Option(c, k)));
    byId("norm").value = info.norm;
    root.style.setProperty("--ground", info.ramp[0]);
    byId("ramp").style.background = `linear-gradient(90deg, ${info.ramp.join(", ")})`;
    byId("steps").value = info.steps;
    if (info.data) { byId("samples-class").append(...info.data.classes_there.map((k) => new Option(info.classes[k], k))); strip(); }
    document.body.dataset.ready = "yes";
    if (early.length) take(early.splice(0));
  }

  // Images ----------------------------------------------------------------

  async function take(files) {
    if (failed) return;
    if (!info) {
      early.push(...files);
      byId("what").textContent = "Loading the models … The image is read when they are there.";
      return;
    }
    complain("");
    const all = [...files].filter((f) => f.size || f.type);
    if (all.length > MOST) complain(`${all.length} files at once are too many; the first ${MOST} are read.`);
    for (const file of all.slice(0, MOST)) {
      if (file.size > info.max_upload) { complain(`This file is larger than ${info.max_upload >> 20} MB, which is the limit (--max-upload).`); continue; }
      say("Reading the image …");
      try {
        // the bytes alone: a file's name may be a patient's, and stays here
        const body = new Blob([file], { type: "application/octet-stream" });
        const found = await (await ask("images", { method: "POST", body })).json();
        keep({ ...found, number: held.length + 1 });
      } catch (error) { complain(error.message); say(""); }
    }
  }

  function keep(found) {
    held.push(found);
    byId("held").hidden = false;
    const button = make("button");
    button.type = "button";
    button.setAttribute("aria-label", title(found));
    const img = make("img");
    img.alt = "";
    img.src = found.thumb;
    button.append(img);
    button.addEventListener("click", () => show(found));
    byId("held-thumbs").append(button);
    found.button = button;
    show(found);
  }

  const title = (one) => (one.sample === undefined ? `Image ${one.number}` : `Image ${one.sample + 1} of ${info.data.name}`);

  function show(found) {
    stop();
    image = found;
    attack = null;
    byId("views").replaceChildren();
    views = info.models.map((model) => ({ model, steps: [], underAttack: [], notes: [], unfit: "" }));
    document.body.classList.add("full");
    byId("case").hidden = false;
    byId("slider").hidden = true;
    byId("title").textContent = title(found);
    byId("image").src = found.image;
    byId("image").alt = `${title(found)}, as the models see it`;
    byId("case-facts").replaceChildren();
    if (found.label !== null) byId("case-facts").append("True class: ", make("b", info.classes[found.label]));
    const other = found.width && (found.width !== info.size || found.height !== info.size);
    byId("case-size").textContent = `${info.size} × ${info.size} pixels${other ? `, from ${found.width} × ${found.height}` : ""}`;
    for (const one of held) one.button.toggleAttribute("aria-current", one === found);
    frame();
    redraw();
    work("predict", {}, (event) => { if (event.model) of(event).seen = event; }).then((ended) => { if (ended) explain(); });
  }

  // Lays the outline of the mask over the image, where there is one.
  function frame() {
    const plate = byId("image").parentElement;
    plate.querySelector(".outline")?.remove();
    if (image.outline) plate.append(edge(image.outline, info.size));
    byId("edges").hidden = !image.outline;
    byId("mask-add").textContent = image.outline ? "Another mask …" : "Add its mask …";
  }

  async function takeMask(files) {
    if (!image || !files.length) return;
    complain("");
    if (files[0].size > info.max_upload) return complain(`This file is larger than ${info.max_upload >> 20} MB, which is the limit (--max-upload).`);
    const about = image, body = new Blob([files[0]], { type: "application/octet-stream" });
    try { about.outline = (await (await ask(`images/${about.id}/mask`, { method: "POST", body })).json()).outline; } catch (error) { return complain(error.message); }
    if (about !== image) return;
    frame();
    redraw();
  }

  const of = (event) => views.find((v) => v.model.name === event.model);

  // Draws one model's view anew, or all of them.
  function redraw(one) {
    for (const view of one ? [one] : views) {
      const section = draw(view, info, image, attack, place);
      if (view.section && view.section.isConnected) view.section.replaceWith(section);
      else byId("views").append(section);
      view.section = section;
    }
  }

  // Work ------------------------------------------------------------------

  const say = (words) => { byId("status").textContent = words; };
  const DOING = { predict: "Asking the models", explain: "Mapping the evidence", attack: "Attacking" };

  // Returns whether the work came to its end; a newer piece of the same kind ends the older one.
  async function work(kind, more, heard) {
    if (running[kind]) running[kind].abort();
    const control = (running[kind] = new AbortController());
    const about = image;
    busy();
    try {
      const body = JSON.stringify({ page, kind, image: image.id, ...more });
      const answer = await ask("work", { method: "POST", body, signal: control.signal });
      for await (const event of lines(answer.body)) {
        if (control.signal.aborted || about !== image) return false;
        if (event.state === "error") { complain(event.error); return false; }
        if (event.state === "stopped") return false;
        if (event.state === "queued") { say(event.ahead ? `${DOING[kind]}: waiting for other work …` : `${DOING[kind]} …`); heard(event); }
        if (event.state === "running") say(`${DOING[kind]} …`);
        if (event.done !== undefined) byId("progress").value = event.done;
        if (event.model) {
          const view = of(event);
          if (event.failed) view.failed = event.failed;
          else if (event.note) { if (!view.notes.includes(event.note)) view.notes.push(event.note); }
          else heard(event);
          redraw(view);
        }
        if (event.state === "done") return true;
      }
      complain(GONE);
      return false;
    } catch (error) {
      if (error.name !== "AbortError") complain(error.message);
      return false;
    } finally {
      if (running[kind] === control) { delete running[kind]; busy(); }
    }
  }

  async function* lines(stream) {
    const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      let part;
      try { part = await reader.read(); } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new Error(GONE);
      }
      if (part.done) return;
      const pieces = (rest + part.value).split("\n");
      rest = pieces.pop();
      for (const piece of pieces) if (piece) yield JSON.parse(piece);
    }
  }

  function busy() {
    const some = Object.keys(running).length > 0;
    byId("stop").hidden = !some;
    byId("progress").hidden = !some;
    byId("attack").disabled = Boolean(running.attack);
    byId("case").setAttribute("aria-busy", String(some));
    if (some) { byId("progress").value = 0; return; }
    const broken = views.filter((v) => attack && v.minimal !== undefined && v.minimal !== null).length;
    say(!image ? "" : attack ? `Done: ${broken} of ${views.length} models broken within the grid.` : "Done.");
  }

  function stop() {
    for (const kind of Object.keys(running)) { running[kind].abort(); delete running[kind]; }
    busy();
  }

  function explain() {
    const method = byId("method").value, target = byId("target").value;
    for (const view of views) {
      const reason = view.model.unfit[method];
      view.unfit = reason ? `Not by this method: ${reason}.` : "";
      view.map = undefined;
      view.underAttack = [];
    }
    redraw();
    const under = attack && attack.id && views.some((v) => v.steps.length) ? { attack: attack.id, first: place } : {};
    return work("explain", { method, target: target === "" ? null : Number(target), ...under }, (event) => {
      if (!event.model) return;
      if (event.step === null) of(event).map = event;
      else of(event).underAttack[event.step] = event;
    });
  }

  async function press() {
    if (!image || running.attack) return;
    complain("");
    const norm = byId("norm").value, steps = Math.min(200, Math.max(1, Math.round(Number(byId("steps").value)) || info.steps));
    byId("steps").value = steps;
    for (const view of views) Object.assign(view, { steps: [], underAttack: [], notes: [], minimal: undefined });
    attack = { id: null, norm, steps, epsilons: info.norms[norm] };
    place = Math.floor(attack.epsilons.length / 2);
    grid();
    redraw();
    const ended = await work("attack", { norm, steps }, (event) => {
      if (event.attack) attack.id = event.attack;
      if (!event.model) return;
      if (event.step !== undefined) of(event).steps[event.step] = event;
      else if ("minimal" in event) of(event).minimal = event.minimal;
    });
    if (ended) explain();
  }

  // The slider ------------------------------------------------------------

  function grid() {
    const texts = attack.epsilons.map((e) => number(e, attack.norm));
    byId("slider").hidden = false;
    byId("eps").max = texts.length - 1;
    byId("ticks").replaceChildren(...texts.map((t) => make("span", attack.norm === "linf" ? t.replace("/255", "") : t)));
    move(place);
  }

  function move(to) {
    if (!attack) return;
    place = Math.min(Math.max(to, 0), attack.epsilons.length - 1);
    const words = number(attack.epsilons[place], attack.norm);
    byId("eps").value = place;
    byId("eps").setAttribute("aria-valuetext", `eps ${words}`);
    byId("eps-now").textContent = words;
    redraw();
  }

  function setOutline(shown) {
    byId("case").dataset.outline = shown ? "on" : "off";
    byId("outline").checked = shown;
  }

  function setMap(kind) {
    byId("views").className = `views ${kind}`;
    document.querySelector(`input[name="map"][value="${kind}"]`).checked = true;
  }
  setMap("over");

  // Images of the data ----------------------------------------------------

  let first = 0;
  function strip() {
    const { labels, page: many, name } = info.data, chosen = byId("samples-class").value;
    const rows = labels.flatMap((label, i) => (chosen === "" || label === Number(chosen) ? [i] : []));
    first = Math.max(0, Math.min(first, Math.floor((rows.length - 1) / many) * many));
    const here = rows.slice(first, first + many);
    byId("samples").hidden = false;
    byId("samples-name").textContent = name;
    byId("samples-place").textContent = here.length ? `${first + 1}–${first + here.length} of ${rows.length}` : "none";
    byId("samples-back").disabled = first === 0;
    byId("samples-on").disabled = first + many >= rows.length;
    byId("samples-thumbs").replaceChildren(...here.map((i) => {
      const button = make("button"), img = make("img");
      button.type = "button";
      button.setAttribute("aria-label", `Image ${i + 1}, ${info.classes[labels[i]]}`);
      img.alt = "";
      button.append(img);
      ask(`samples/${i}`).then((a) => a.json()).then((found) => { img.src = found.image; }, () => { button.disabled = true; });
      button.addEventListener("click", async () => {
        complain("");
        try { keep({ ...(await (await ask(`samples/${i}`, { method: "POST" })).json()), number: held.length + 1 }); } catch (error) { complain(error.message); }
      });
      return button;
    }));
  }
  byId("samples-class").addEventListener("change", () => { first = 0; strip(); });
  byId("samples-back").addEventListener("click", () => { first -= info.data.page; strip(); });
  byId("samples-on").addEventListener("click", () => { first += info.data.page; strip(); });

  // What a person does ----------------------------------------------------

  const zone = byId("zone"), file = byId("file");
  file.addEventListener("change", () => { take(file.files); file.value = ""; });
  let depth = 0;
  document.addEventListener("dragenter", (event) => { event.preventDefault(); depth += 1; zone.classList.add("over"); });
  document.addEventListener("dragleave", () => { depth -= 1; if (depth <= 0) { depth = 0; zone.classList.remove("over"); } });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    zone.classList.remove("over");
    if (event.dataTransfer) take(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => { if (event.clipboardData && event.clipboardData.files.length) take(event.clipboardData.files); });

  byId("method").addEventListener("change", () => { if (image) explain(); });
  byId("target").addEventListener("change", () => { if (image) explain(); });
  byId("attack").addEventListener("click", press);
  byId("stop").addEventListener("click", () => { stop(); say("Stopped."); });
  byId("eps").addEventListener("input", () => move(Number(byId("eps").value)));
  document.querySelectorAll('input[name="map"]').forEach((input) => input.addEventListener("change", () => setMap(input.value)));
  byId("outline").addEventListener("change", () => setOutline(byId("outline").checked));
  byId("mask-add").addEventListener("click", () => byId("mask").click());
  byId("mask").addEventListener("change", () => { takeMask([...byId("mask").files]); byId("mask").value = ""; });
  byId("forget").addEventListener("click", async () => {
    stop();
    try { await ask("forget", { method: "POST" }); } catch (error) { return complain(error.message); }
    held.length = 0;
    image = attack = null;
    views = [];
    byId("held-thumbs").replaceChildren();
    byId("views").replaceChildren();
    byId("image").removeAttribute("src");
    byId("held").hidden = byId("case").hidden = true;
    document.body.classList.remove("full");
    byId("title").textContent = "Drop an image, see what the models see";
    file.focus();
  });

  const keys = {
    o: () => file.click(),
    a: press,
    l: () => setOutline(!byId("outline").checked),
    m: () => setMap(byId("views").classList.contains("over") ? "alone" : "over"),
    "-": () => move(place - 1),
    "+": () => move(place + 1),
    "=": () => move(place + 1),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("select, textarea, input:not([type=radio]):not([type=checkbox]):not([type=file])")) return;
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  begin();
})();
