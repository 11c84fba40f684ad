// Follows elements.js in one script.
(() => {
  const digits = (value, places = 2) => (value === null ? "–" : value.toFixed(places).replace("-", "−"));
  const percent = (part) => (part === null ? "–" : `${(100 * part).toFixed(1)}%`);

  function table(heads, rows) {
    const head = heads.map(([words, kind]) => el("th", { scope: "col", class: kind ?? "" }, words));
    return el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row))));
  }

  const cell = (words, kind = "") => el("td", { class: kind }, words);
  const name = (words) => el("th", { scope: "row", dir: "auto" }, words);

  function tinted(share, words, below = false) {
    const made = el("td", { class: below ? "tinted below" : "tinted" }, words);
    made.style.setProperty("--share", Math.min(1, Math.max(0, share)));
    return made;
  }

  function drawHead() {
    document.title = `${report.title} – tunesift comparison`;
    byId("title").textContent = report.title;
    byId("notes").append(...report.notes.map((note) => text("p", note)));
  }

  function drawRuns() {
    const heads = [["Run"], ["Kept", "number"], ["Score"], ["Rank correlation with length", "number"], ["Median length kept", "number"], ["Settings"]];
    const rows = report.sides.map((side) => [
      name(side.name),
      cell(`${integer.format(side.kept)} (${percent(side.kept / report.records)})`, "number"),
      cell(side.score ?? "none"), cell(digits(side.length), "number"),
      cell(side.kept_length === null ? "–" : integer.format(side.kept_length), "number"),
      text("td", side.facts.filter(([key]) => ["method", "scorer", "also", "keep", "seed"].includes(key))
        .filter(([key, value]) => value !== "" && (side.score !== null || !["scorer", "also"].includes(key)))
        .map(([key, value]) => `${key}: ${value}`).join(" · "), "note"),
    ]);
    byId("runs").append(table(heads, rows),
      el("p", { class: "note" }, `Median length of all ${integer.format(report.records)} responses: ${integer.format(report.median_length)} characters.`));
  }

  function drawOverlap() {
    const heads = [["Runs"], ["In both", "number"], ["As they are", "number"], ["At equal budget", "number"], ["Budget", "number"], ["Chance", "number"]];
    byId("overlap").append(table(heads, report.overlaps.map((o) => [
      name(`${o.first} / ${o.second}`), cell(integer.format(o.both), "number"), cell(digits(o.jaccard), "number"),
      tinted(o.equal ?? 0, digits(o.equal)), cell(integer.format(o.budget), "number"), cell(digits(o.chance), "number"),
    ])));
  }

  function drawRanks() {
    const names = [...new Set(report.correlations.flatMap((c) => [c.first, c.second]))];
    const found = new Map(report.correlations.flatMap((c) => [[`${c.first}\n${c.second}`, c], [`${c.second}\n${c.first}`, c]]));
    const heads = [["Score"], ...names.map((_, place) => [String(place + 1), "number"])];
    if (names.length < 2) return byId("rank").append(empty("No run has a score."));
    byId("rank").append(table(heads, names.map((row, place) => [
      name(`${place + 1}  ${row}`),
      ...names.map((column) => {
        if (row === column) return cell("");
        const { value, over } = found.get(`${row}\n${column}`);
        const made = tinted(Math.abs(value ?? 0), digits(value), (value ?? 0) < 0);
        made.title = `${row} / ${column}: over ${integer.format(over)} records`;
        return made;
      }),
    ])));
  }

  function drawLengths() {
    const heads = [["Characters"], ...report.bands.map((band) => [band])];
    byId("length").append(table(heads, report.sides.map((side) => [
      name(side.name), ...side.shares.map((share) => tinted(share, percent(share))),
    ])));
    const scored = report.sides.filter((side) => side.medians.length);
    if (!scored.length) return byId("scores").append(empty("No run has a score."));
    byId("scores").append(table(heads, scored.map((side) => {
      const found = side.medians.filter((value) => value !== null);
      const [least, most] = [Math.min(...found), Math.max(...found)];
      const share = (value) => (value === null || least === most ? 0 : (value - least) / (most - least));
      return [name(`${side.name}: ${side.score}`), ...side.medians.map((value) => tinted(share(value), digits(value)))];
    })));
  }

  function record(row, keeps, drops) {
    return el("li", {},
      text("p", row.id, "id"),
      el("p", { class: "why" }, el("span", { class: "pill kept" }, keeps), " ", text("bdi", row.kept)),
      el("p", { class: "why" }, el("span", { class: "pill dropped" }, drops), " ", text("bdi", row.dropped)),
      el("div", { class: "messages" }, ...row.messages.map(([role, words]) => el(
        "div", { class: `message ${PART.has(role) ? role : "other"}` },
        el("p", { class: "role" }, PART.get(role) ?? role), said(words),
      ))));
  }

  function column(keeps, drops) {
    const found = report.differences.find((d) => d.keeps === keeps && d.drops === drops);
    const head = el("header", {}, text("h3", `${keeps} keeps, ${drops} does not`),
      el("p", { class: "place" }, found ? integer.format(found.count) : "0"));
    if (!found?.rows.length) return el("article", {}, head, empty("There is no such record."));
    const list = el("ol", { class: "records", tabindex: "0", "aria-label": `Kept by ${keeps} only` },
      ...found.rows.map((row) => record(row, keeps, drops)));
    return el("article", {}, head, list);
  }

  function drawDifferences() {
    const names = report.sides.map((side) => side.name);
    for (const [id, chosen] of [["first", 0], ["second", 1]]) {
      byId(id).append(...names.map((words) => el("option", {}, words)));
      byId(id).selectedIndex = chosen;
    }
    const show = () => {
      const [a, b] = [names[byId("first").selectedIndex], names[byId("second").selectedIndex]];
      byId("pair").replaceChildren(...(a === b ? [empty("Choose two different runs.")] : [column(a, b), column(b, a)]));
    };
    byId("tools").addEventListener("submit", (event) => event.preventDefault());
    byId("tools").addEventListener("input", show);
    show();
  }

  for (const draw of [drawTheme, drawHead, drawRuns, drawOverlap, drawRanks, drawLengths, drawDifferences]) draw();
})();
