"use strict";
// How one model's view of one image is drawn; the state itself is kept in view.js.
window.Plates = (() => {
  const SHOWN = 5, SVG = "http://www.w3.org/2000/svg";
  const WORDS = {
    pgd: (steps) => `PGD, ${steps} steps, with the model's gradients`,
    square: (steps, each) => `Square, ${steps * each} queries, scores only`,
    boundary: (steps, each) => `Boundary, ${steps * each} queries, labels only`,
  };

  function make(tag, words = "", name = "") {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (words !== "") element.textContent = words;
    return element;
  }

  const percent = (p) => (p >= 0.9995 && p < 1 ? "> 99.9%" : p > 0 && p < 0.0005 ? "< 0.1%" : `${(100 * p).toFixed(1)}%`);

  function number(value, norm) {
    if (norm === "linf") return `${Number((value * 255).toPrecision(3))}/255`;
    return String(Number(value.toPrecision(3)));
  }

  // Returns the edge of a mask, a path in the pixels of the image, to be laid over a plate.
  function edge(path, size) {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("class", "outline");
    svg.setAttribute("viewBox", `0 0 ${size} ${size}`);
    svg.setAttribute("aria-hidden", "true");
    for (const name of ["halo", ""]) {
      const line = document.createElementNS(SVG, "path");
      line.setAttribute("class", name);
      line.setAttribute("d", path);
      line.setAttribute("vector-effect", "non-scaling-stroke");
      svg.append(line);
    }
    return svg;
  }

  function picture(layers, label, outline) {
    const plate = make("div", "", "plate");
    plate.setAttribute("role", "img");
    plate.setAttribute("aria-label", label);
    for (const [uri, name] of layers) {
      const img = make("img", "", name);
      img.alt = "";
      img.src = uri;
      plate.append(img);
    }
    if (outline) plate.append(edge(...outline));
    return plate;
  }

  function figure(plate, ...lines) {
    const outer = make("figure");
    const caption = make("figcaption");
    lines.forEach((line, i) => { if (i) caption.append(make("br")); caption.append(line); });
    outer.append(plate, caption);
    return outer;
  }

  const blank = (words) => make("div", words, "plate empty");

  function guess(seen, classes, before) {
    const changed = before !== undefined && seen.prediction !== before;
    const line = make("span");
    line.append(make("b", classes[seen.prediction], changed ? "changed" : ""), ` ${percent(seen.probabilities[seen.prediction])}`);
    return line;
  }

  function mapFigure(base, map, lines, label, failure, outline) {
    if (failure) return figure(blank(failure), ...lines);
    if (!map) return figure(blank("…"), ...lines);
    const plate = picture([[base, "base below"], [map.map, "heat"]], `${label}, evidence for ${map.target}`, outline);
    return figure(plate, ...lines, map.empty ? "no evidence anywhere" : `evidence for ${map.target}`);
  }

  function bars(view, info, step) {
    const clean = view.seen, hit = step && step.probabilities ? step : null;
    const rank = clean.probabilities.map((p, k) => [Math.max(p, hit ? hit.probabilities[k] : 0), k]);
    const rows = rank.sort((a, b) => b[0] - a[0]).slice(0, SHOWN).map((r) => r[1]);
    const table = make("table", "", "bars");
    table.append(make("caption", `Probabilities by ${view.model.name}`));
    const columns = make("colgroup");
    columns.append(make("col", "", "name"), make("col"), ...(hit ? [make("col")] : []));
    const head = make("thead"), top = make("tr");
    for (const words of ["Class", "Without attack", ...(hit ? ["Under attack"] : [])]) {
      const cell = make("th", words);
      cell.scope = "col";
      top.append(cell);
    }
    head.append(top);
    const body = make("tbody");
    for (const k of rows) {
      const row = make("tr", "", k === clean.prediction ? "chosen" : ""), name = make("th", info.classes[k]);
      name.scope = "row";
      row.append(name, bar(clean.probabilities[k]), ...(hit ? [bar(hit.probabilities[k], "attacked")] : []));
      body.append(row);
    }
    table.append(columns, head, body);
    const more = clean.probabilities.length - rows.length;
    return more > 0 ? [table, make("p", `${more} more classes are not shown.`, "remark")] : [table];
  }

  function bar(p, name = "") {
    const cell = make("td"), outer = make("span", "", `bar ${name}`), line = make("i");
    line.style.setProperty("--share", `${(100 * p).toFixed(2)}%`);
    outer.append(line, make("span", percent(p)));
    cell.append(outer);
    return cell;
  }

  function least(view, attack) {
    const line = make("p", "", "remark least");
    if (view.minimal === undefined) return null;
    const { norm, epsilons } = attack;
    const most = number(epsilons[epsilons.length - 1], norm);
    if (view.minimal === null) line.append("Not broken at any eps up to ", make("b", most), "; a stronger attack might.");
    else line.append("Broken from eps ", make("b", number(view.minimal, norm)), " on (the least this attack found, an upper bound).");
    return line;
  }

  function attackFigures(view, info, attack, place, outline) {
    const step = view.steps[place], eps = number(attack.epsilons[place], attack.norm);
    const { name } = view.model;
    if (!step) return ["Attacked image", "What was added", "Map under attack"].map((words) => figure(blank("…"), words));
    const attacked = picture([[step.image, "base"]], `Attacked through ${name} at eps ${eps}: ${info.classes[step.prediction]}`, outline);
    const delta = picture([[step.added, "base"]], `Perturbation against ${name} at eps ${eps}, magnified ${step.factor} times around grey`, outline);
    return [
      figure(attacked, `Attacked, eps ${eps}`, guess(step, info.classes, view.seen && view.seen.prediction)),
      figure(delta, `What was added, ×${step.factor}`, "grey is no change"),
      mapFigure(step.image, view.underAttack[place], ["Map under attack"], `Map of ${name} under attack at eps ${eps}`, view.unfit, outline),
    ];
  }

  // Returns the section of one model: its figures, its bars, what there is to say.
  function draw(view, info, image, attack, place) {
    const section = make("section", "", "view");
    section.dataset.model = view.model.name;
    const head = make("header");
    head.append(make("h3", view.model.name), make("span", view.model.architecture));
    if (!view.model.gradients) head.append(make("span", view.model.scores ? "black box: scores" : "black box: labels"));
    section.append(head);
    if (view.failed) {
      section.append(make("p", view.failed, "remark bad"));
      return section;
    }
    const plates = make("div", "", "plates"), outline = image.outline ? [image.outline, info.size] : null;
    const lines = ["Map, no attack", ...(view.seen ? [guess(view.seen, info.classes)] : [])];
    plates.append(mapFigure(image.image, view.map, lines, `Map of ${view.model.name}`, view.unfit, outline));
    if (attack) plates.append(...attackFigures(view, info, attack, place, outline));
    section.append(plates);
    if (view.seen) section.append(...bars(view, info, attack && view.steps[place]));
    const line = attack && least(view, attack);
    if (line) section.append(line);
    if (attack) section.append(make("p", `Attack: ${WORDS[view.model.attack](attack.steps, info.queries)}; away from what the model makes of the image.`, "remark"));
    for (const words of [...view.model.notes, ...view.notes]) section.append(make("p", words, "remark bad"));
    return section;
  }

  return { draw, edge, make, number };
})();
