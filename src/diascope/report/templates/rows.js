(() => {
  if (!page.state) return;
  const { byId } = page;
  const rows = page.state.rows;
  const SIZE = 100;
  const table = byId("rows");
  const body = table.tBodies[0];
  const never = rows.epsilons.length;
  const count = rows.ids.length;
  let order = [...rows.ids.keys()];
  let fitting = order;
  let start = 0;
  let sorted = { key: "", model: 0, down: false };

  const value = (id) => (byId(id) ? byId(id).value : "");
  const broken = (model, i) => { const e = model.e[i]; return e === -1 ? never : e; };  // -2: unknown
  const right = (model, i) => model.p[i] < 0 ? null : model.p[i] === rows.labels[i];

  // Whether one model's numbers of an image fit all that is asked.
  function modelFits(model, i, asked) {
    const eps = broken(model, i);
    if (asked.status === "wrong" && right(model, i) !== false) return false;
    if (asked.status === "right" && right(model, i) !== true) return false;
    const falls = eps >= 0 && eps < never && rows.values[eps] <= asked.eps;
    if (asked.status === "broken" && !(falls && right(model, i))) return false;
    if (asked.status === "withstood" && (falls || eps < 0 || !right(model, i))) return false;
    if (asked.ranged && (eps < asked.from || eps > asked.to)) return false;
    if (asked.mapped && (model.l[i] < 0 || model.l[i] < asked.low || model.l[i] > asked.high)) return false;
    return true;
  }

  function question() {
    const from = value("eps-from"), to = value("eps-to");
    const low = value("map-from"), high = value("map-to");
    return {
      label: value("filter-class"), status: value("filter-status"), model: value("filter-model"),
      name: value("filter-name").trim().toLowerCase(), pictured: byId("pictured").checked,
      ranged: from !== "" || to !== "", from: from === "" ? 0 : Number(from), to: to === "" ? never : Number(to),
      mapped: low !== "" || high !== "", low: low === "" ? 0 : 1000 * low, high: high === "" ? 1000 : 1000 * high,
      eps: page.eps ? page.eps() : Infinity,
    };
  }

  function fits(i, asked) {
    if (asked.label !== "" && rows.labels[i] !== Number(asked.label)) return false;
    if (asked.pictured && rows.cases[i] < 0) return false;
    if (asked.name && !rows.ids[i].toLowerCase().includes(asked.name)) return false;
    if (asked.status === "differ" && new Set(rows.models.map((m) => m.p[i])).size < 2) return false;
    if (asked.model !== "") return modelFits(rows.models[Number(asked.model)], i, asked);
    const every = asked.status === "right" || asked.status === "withstood";
    return every ? rows.models.every((m) => modelFits(m, i, asked)) : rows.models.some((m) => modelFits(m, i, asked));
  }

  function filter() {
    const asked = question();
    fitting = order.filter((i) => fits(i, asked));
    start = 0;
    draw();
    const cases = new Set(fitting.map((i) => rows.cases[i]).filter((c) => c >= 0));
    if (page.narrow) page.narrow(cases);
  }

  const node = (tag, text, kind) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };

  function opener(i) {
    const cell = node("td");
    if (rows.cases[i] >= 0) {
      const button = node("button", `Case ${rows.cases[i] + 1}`);
      button.type = "button";
      button.addEventListener("click", () => page.open(rows.cases[i], true));
      cell.append(button);
    } else cell.append(node("span", "–", "quiet"));
    return cell;
  }

  function modelCells(model, i) {
    const guess = node("td", undefined, "guess");
    if (model.p[i] < 0) guess.append(node("span", "—", "quiet"));
    else {
      const good = right(model, i);
      guess.classList.add(good ? "right" : "wrong");
      const told = node("b", good ? "✓ right" : "✗ wrong");
      const p = model.q[i] < 0 ? "—" : (model.q[i] / 1000).toFixed(2);
      guess.append(told, ` ${rows.classes[model.p[i]]} `, node("span", p, "p"));
    }
    const eps = model.e[i];
    const when = eps === -1 ? "never" : eps < 0 ? "—" : rows.values[eps] === 0 ? "wrong as is" : rows.epsilons[eps];
    return [guess, node("td", when), node("td", model.l[i] < 0 ? "—" : (model.l[i] / 1000).toFixed(2))];
  }

  function draw() {
    const chosen = value("shown-model");
    const cells = (i) => {
      const line = node("tr");
      const name = node("th", rows.ids[i]);
      name.scope = "row";
      line.append(opener(i), name, node("td", rows.classes[rows.labels[i]]));
      rows.models.forEach((m, k) => { if (chosen === "" || Number(chosen) === k) line.append(...modelCells(m, i)); });
      if (rows.sourceNames.length > 1) line.append(node("td", rows.sourceNames[rows.sources[i]]));
      if (rows.groupNames.length > 1) line.append(node("td", rows.groupNames[rows.groups[i]]));
      return line;
    };
    body.replaceChildren(...fitting.slice(start, start + SIZE).map(cells));
    table.querySelectorAll("[data-of]").forEach((head) => { head.hidden = chosen !== "" && head.dataset.of !== chosen; });
    const end = Math.min(start + SIZE, fitting.length);
    const among = fitting.length < count ? ` that fit, ${count} in all` : "";
    byId("page-now").textContent = fitting.length ? `${start + 1} to ${end} of ${fitting.length}${among}` : `No image fits these filters; ${count} in all`;
    byId("page-before").disabled = start === 0;
    byId("page-after").disabled = end >= fitting.length;
  }

  function keyOf(i) {
    const model = rows.models[sorted.model];
    if (sorted.key === "id") return rows.ids[i];
    if (sorted.key === "label") return rows.classes[rows.labels[i]];
    if (sorted.key === "source") return rows.sourceNames[rows.sources[i]];
    if (sorted.key === "group") return rows.groupNames[rows.groups[i]];
    if (sorted.key === "case") return rows.cases[i] < 0 ? null : rows.cases[i];
    const found = sorted.key === "e" ? broken(model, i) : model[sorted.key][i];
    if (sorted.key === "q" && found >= 0) return right(model, i) ? 2000 + found : 1000 - found;  // the surest errors first
    return found < 0 ? null : found;
  }

  function sort(button) {
    const { key, model = 0 } = button.dataset;
    const again = sorted.key === key && sorted.model === Number(model);
    sorted = { key, model: Number(model), down: again && !sorted.down };
    const keys = rows.ids.map((_, i) => keyOf(i));
    const sign = sorted.down ? -1 : 1;
    const compare = (a, b) => (typeof a === "string" ? page.collator.compare(a, b) : a - b);
    order.sort((a, b) => {
      if (keys[a] === null || keys[b] === null) return (keys[a] === null) - (keys[b] === null) || a - b;
      return sign * compare(keys[a], keys[b]) || a - b;
    });
    table.querySelectorAll("thead [aria-sort]").forEach((head) => head.removeAttribute("aria-sort"));
    button.closest("th").setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
    filter();
  }

  page.collator = new Intl.Collator(undefined, { numeric: true });
  page.filter = filter;
  page.clear = () => {
    document.querySelectorAll(".filters select, .filters input").forEach((each) => {
      if (each.type === "checkbox") each.checked = false; else each.value = "";
    });
    filter();
  };
  table.querySelectorAll("thead button").forEach((button) => button.addEventListener("click", () => sort(button)));
  document.querySelectorAll(".filters select, .filters input").forEach((each) => {
    each.addEventListener(each.type === "search" || each.type === "number" ? "input" : "change", filter);
  });
  byId("clear").addEventListener("click", page.clear);
  const turn = (by) => { start += by; draw(); table.closest(".scroll").scrollTop = 0; };
  byId("page-before").addEventListener("click", () => turn(-SIZE));
  byId("page-after").addEventListener("click", () => turn(SIZE));
  if (byId("shown-model")) byId("shown-model").addEventListener("change", draw);
  page.keys["/"] = () => byId("filter-name").focus();
  filter();
})();
