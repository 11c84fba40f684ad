// Follows elements.js in one script.
(() => {
  const PAGE_SIZE = 50;
  const SHORT_LIST = 12;
  const OUTPUT = new Set(["keep", "replace", "create"]);
  const FATE = new Map([["keep", "kept"], ["replace", "replaced"], ["create", "created"], ["drop", "dropped"],
    ["quarantine", "quarantined"]]);

  // Building blocks

  function button(words, press, attributes = {}) {
    const made = el("button", { type: "button", ...attributes }, words);
    made.addEventListener("click", () => made.getAttribute("aria-disabled") !== "true" && press(made));
    return made;
  }

  const pill = (action) => el("span", { class: `pill ${FATE.get(action) ?? "other"}` }, FATE.get(action) ?? action);

  // Numbers

  function share(part, whole) {
    if (!whole) return "";
    const percent = (100 * part) / whole;
    if (part > 0 && percent < 0.1) return "< 0.1%";
    if (part < whole && percent > 99.9) return "> 99.9%";
    return `${percent.toFixed(percent === 100 || percent === 0 ? 0 : 1)}%`;
  }

  const whole = (values) => values.every((value) => value === null || Number.isInteger(value));
  const wholeScores = whole(report.rows.map((row) => row.score));

  function digits(value, bare = wholeScores) {
    if (value === null) return "–";
    if (bare && Number.isSafeInteger(value)) return integer.format(value);
    const size = Math.abs(value);
    if (size !== 0 && (size < 0.001 || size >= 1e7)) return value.toExponential(3);
    if (size >= 1000) return value.toFixed(1);
    const places = [4, 6, 8, 12].find((n) => Number.isInteger(value) || !Number.isInteger(Number(value.toFixed(n))));
    return value.toFixed(places ?? 12); // 0.99996 must not look as if it were 1
  }

  // Long lists grow by a button

  function growing(items, build, tag, kind, size, noun) {
    const list = el(tag, { class: kind });
    const more = button("", show, { class: "more" });
    let shown = 0;
    function show() {
      list.append(...items.slice(shown, shown + size).map(build));
      shown = Math.min(items.length, shown + size);
      more.hidden = shown === items.length;
      more.textContent = `Show more: ${integer.format(items.length - shown)} of ${count(items.length, noun)} left`;
    }
    show();
    return [list, more];
  }

  function bars(items, whole, kindOf, noun) {
    const widest = items.reduce((most, item) => Math.max(most, item.count), whole || 1);
    const build = (item) => {
      const bar = item.count ? el("span", { class: `bar ${kindOf(item.label)}` }) : "";
      if (item.count) bar.style.width = `${(100 * item.count) / widest}%`;
      return el(
        "li", {},
        text("span", item.label, "label"),
        el("span", { class: "track", "aria-hidden": "true" }, bar),
        el("span", { class: "value" }, el("b", {}, integer.format(item.count)), " ", el("span", {}, share(item.count, whole))),
      );
    };
    return growing(items, build, "ol", "bars", SHORT_LIST, noun);
  }

  // One record in full

  function conversation(row) {
    if (!row.messages.length) return empty("This record has no messages.");
    const pair = row.messages.at(-1)[0] === "rejected";
    const turns = pair ? row.messages.slice(0, -1) : row.messages;
    return el("div", { class: "messages" }, ...turns.map(([role, words], n) => el(
      "div", { class: `message ${PART.has(role) ? role : "other"}` },
      el("p", { class: "role" }, PART.get(role) ?? role, PART.has(role) && role !== "system" ? el("span", {}, role) : null),
      pair && n === turns.length - 1 ? answers(words, row.messages.at(-1)[1])
        : altered(row, n) ? rewritten(counterpart(row, n), words) : said(words),
    )));
  }

  // Both answers of a preference pair

  function answers(chosen, rejected) {
    return el("div", { class: "change" },
      el("div", {}, el("p", { class: "side" }, "Chosen"), said(chosen)),
      el("div", {}, el("p", { class: "side" }, "Rejected"), said(rejected)));
  }

  // What the same role said before at the same turn: a message may have come in front of it

  function counterpart(row, n) {
    const role = row.messages[n][0];
    const turn = row.messages.slice(0, n).filter((message) => message[0] === role).length;
    return row.before.filter((message) => message[0] === role)[turn]?.[1];
  }

  function altered(row, n) {
    const old = counterpart(row, n);
    return old !== undefined && old !== row.messages[n][1];
  }

  // Before and after, with the words that changed marked

  function rewritten(old, now) {
    const [before, after] = changes(pieces(old), pieces(now));
    return el("div", { class: "change" },
      el("div", {}, el("p", { class: "side" }, "Before"), marked(before, "del")),
      el("div", {}, el("p", { class: "side" }, "After"), marked(after, "ins")));
  }

  function marked(runs, tag) {
    if (!runs.length) return empty("(empty)");
    return el("div", { class: "words", dir: "auto" }, ...runs.map(([changed, words]) => changed ? el(tag, {}, words) : words));
  }

  const pieces = (words) => words.match(/\s+|(?:(?!\p{Script=Han}|\p{Script=Hiragana})[\p{L}\p{N}\p{M}_])+|./gsu) ?? [];

  // Runs of both texts, each with whether it is in that text only: a longest common subsequence of words.
  function changes(old, now) {
    let start = 0;
    while (start < old.length && start < now.length && old[start] === now[start]) start += 1;
    let end = 0;
    while (end < old.length - start && end < now.length - start
      && old[old.length - 1 - end] === now[now.length - 1 - end]) end += 1;
    const [a, b] = [old.slice(start, old.length - end), now.slice(start, now.length - end)];
    const wide = b.length + 1;
    const best = new Uint16Array((a.length + 1) * wide); // at most 4,000 pieces each: 32 MB for the longest texts
    for (let i = a.length - 1; i >= 0; i -= 1) {
      for (let j = b.length - 1; j >= 0; j -= 1) {
        best[i * wide + j] = a[i] === b[j] ? best[(i + 1) * wide + j + 1] + 1
          : Math.max(best[(i + 1) * wide + j], best[i * wide + j + 1]);
      }
    }
    const [left, right] = [[[false, old.slice(0, start).join("")]], [[false, now.slice(0, start).join("")]]];
    let [i, j] = [0, 0];
    while (i < a.length || j < b.length) {
      if (i < a.length && j < b.length && a[i] === b[j]) {
        left.push([false, a[i]]);
        right.push([false, b[j]]);
        i += 1;
        j += 1;
      } else if (j < b.length && (i === a.length || best[i * wide + j + 1] >= best[(i + 1) * wide + j])) {
        right.push([true, b[j]]);
        j += 1;
      } else {
        left.push([true, a[i]]);
        i += 1;
      }
    }
    left.push([false, old.slice(old.length - end).join("")]);
    right.push([false, now.slice(now.length - end).join("")]);
    return [joined(left), joined(right)];
  }

  // Neighbours of one kind as one run.
  function joined(runs) {
    const made = [];
    for (const [changed, words] of runs.filter(([, w]) => w !== "")) {
      const last = made.at(-1);
      if (last && last[0] === changed) last[1] += words;
      else made.push([changed, words]);
    }
    return made;
  }

  function pairs(entries, kind) {
    return el("dl", { class: kind }, ...entries.map(([name, value]) => el("div", {}, text("dt", name), text("dd", value))));
  }

  function full(row) {
    const parts = Object.entries(row.parts).map(([name, value]) =>
      [name, digits(value, whole(report.rows.map((other) => other.parts[name] ?? null)))]);
    return [
      pairs([["Reason", row.reason || "none given"], ["Id", row.id], ["Line in the file", row.line === null ? "–" : String(row.line)],
        ["Score", digits(row.score)]], "about"),
      parts.length ? pairs(parts, "parts") : null,
      conversation(row),
    ];
  }

  // Head of the page, and what became of the records

  function drawHead() {
    document.title = `${report.title} – tunesift report`;
    byId("title").textContent = report.title;
    byId("method").textContent = report.method;
    byId("command").textContent = report.command;
    const facts = [["Run", report.run_id], ["Created", report.created], ...report.facts];
    byId("facts").append(...facts.map(([name, value]) => el("div", {}, text("dt", name), text("dd", value))));
  }

  // Where no records were read, none can have been dropped, kept or scored.
  const onlyCreated = report.funnel.length > 0 && report.funnel.every((bar) => bar.label === "created");

  function drawFunnel() {
    const kindOf = (label) => /^(kept|dropped|quarantined|replaced|created)/.exec(label.toLowerCase())?.[1] ?? "other";
    const parts = bars(report.funnel, report.total, kindOf, "count");
    byId("funnel").append(...(report.funnel.length ? parts : [empty("No records were counted.")]));
    const fate = onlyCreated ? "created" : "dropped";
    const counted = report.reasons.reduce((sum, reason) => sum + reason.count, 0);
    const reasons = bars(report.reasons, counted, () => fate, "reason");
    byId("reasons").parentNode.hidden = !counted;
    byId("reasons").append(...reasons);
    if (!onlyCreated) return;
    byId("reasons-title").textContent = "How records were created";
    for (const name of ["scores-title", "pair-title"]) byId(name).parentElement.hidden = true;
  }

  // Distribution of the score

  function drawScores() {
    const data = report.histogram;
    const sum = (counts) => counts.reduce((all, n) => all + n, 0);
    const drawable = data && data.low !== null && data.high !== null && sum(data.kept) + sum(data.dropped) > 0;
    byId("scores").parentNode.hidden = !drawable && !data?.unscored;
    if (!drawable && !data?.unscored) return;
    if (!drawable) {
      return byId("scores").replaceChildren(empty(`No record has a score: ${count(data.unscored, "record")} not scored.`));
    }
    const line = data.threshold === null ? "No single score divides them." : `The threshold is ${digits(data.threshold)}.`;
    const named = text("bdi", data.score);
    const range = data.low === data.high ? `at ${digits(data.low)}` : `drawn from ${digits(data.low)} to ${digits(data.high)}`;
    const outside = report.rows.some(({ score }) => score !== null && (score < data.low || score > data.high));
    const beyond = outside ? " Scores beyond are counted in the outermost bars." : "";
    byId("scores-lead").append(
      named, `: ${count(sum(data.kept) + sum(data.dropped), "scored record")}, ${range}.${beyond} ${line}`);
    byId("legend").append(...[["kept", data.kept], ["dropped", data.dropped]].map(([fate, counts]) =>
      el("li", { class: fate }, `${fate} `, el("b", {}, integer.format(sum(counts))))));
    byId("unscored").textContent = data.unscored ? `${count(data.unscored, "record")} not scored; not in the picture.`
      : "Every record has a score.";
    byId("bins").append(binTable(data));
    drawPlot(data);
    new ResizeObserver(() => drawPlot(data)).observe(byId("plot").parentNode);
  }

  function edges(data) {
    const width = (data.high - data.low) / data.kept.length;
    return data.kept.map((_, i) => [data.low + i * width, data.low + (i + 1) * width]);
  }

  function binTable(data) {
    const heads = ["from", "to", "kept", "dropped"].map((words) => el("th", { scope: "col" }, words));
    const lines = edges(data).map(([from, to], i) => el(
      "tr", {}, el("th", { scope: "row" }, digits(from)),
      ...[digits(to), integer.format(data.kept[i]), integer.format(data.dropped[i])].map((words) => el("td", {}, words)),
    ));
    const attributes = { class: "bins", "aria-label": "Records by score" };
    return el("table", attributes, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...lines));
  }

  function drawPlot(data) {
    const svg = byId("plot");
    const width = Math.max(260, svg.parentNode.clientWidth || 720);
    if (svg.getAttribute("width") === String(width)) return;
    const [height, left, right, top, bottom] = [280, 48, width - 10, 30, 236];
    const middle = data.low === data.high ? 0.5 : 0; // records of one score stand in the middle
    const [low, high] = [data.low - middle, data.high + middle];
    const most = data.kept.reduce((max, n, i) => Math.max(max, n + data.dropped[i]), 1);
    const x = (value) => left + ((value - low) / (high - low)) * (right - left);
    const y = (n) => bottom - (n / most) * (bottom - top);
    fill(svg, { width, height, viewBox: `0 0 ${width} ${height}` }, []);
    svg.replaceChildren(
      ...gridLines(ticks(0, most, 4), y, left, right), ...stacks(data, x, y, right),
      shape("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }),
      ...scoreMarks(ticks(low, high, width < 500 ? 4 : 8), x, bottom),
      shape("text", { class: "name", x: (left + right) / 2, y: height - 6, "text-anchor": "middle" }, data.score),
      ...thresholdLine(data.threshold, low, high, x, top, bottom, width),
    );
  }

  function gridLines({ values }, y, left, right) {
    return values.filter(Number.isInteger).flatMap((n) => [
      shape("line", { class: "grid", x1: left, x2: right, y1: y(n), y2: y(n) }),
      shape("text", { x: left - 8, y: y(n) + 4, "text-anchor": "end" }, integer.format(n)),
    ]);
  }

  function scoreMarks({ values, decimals }, x, bottom) {
    return values.flatMap((value) => [
      shape("line", { class: "axis", x1: x(value), x2: x(value), y1: bottom, y2: bottom + 5 }),
      shape("text", { x: x(value), y: bottom + 20, "text-anchor": "middle" }, value.toFixed(decimals)),
    ]);
  }

  function stacks(data, x, y, right) {
    return edges(data).map(([from, to], i) => {
      const [kept, dropped] = [data.kept[i], data.dropped[i]];
      const start = from === to ? x(from) - 20 : x(from) + 0.5;
      const wide = from === to ? 40 : Math.max(1, Math.min(x(to), right) - x(from) - 1);
      const bar = (fate, base, n) => {
        if (n === 0) return null;
        const tall = Math.max(1.5, y(base) - y(base + n)); // one record in a thousand is still seen
        return shape("rect", { class: fate, x: start, width: wide, y: y(base) - tall, height: tall });
      };
      const words = `${digits(from)} to ${digits(to)}: ${integer.format(kept)} kept, ${integer.format(dropped)} dropped`;
      return shape("g", {}, shape("title", {}, words), bar("kept", 0, kept), bar("dropped", kept, dropped));
    });
  }

  function thresholdLine(value, low, high, x, top, bottom, width) {
    if (value === null || value < low || value > high) return [];
    const at = x(value);
    const anchor = at < 120 ? "start" : at > width - 120 ? "end" : "middle";
    return [
      shape("line", { class: "threshold", x1: at, x2: at, y1: top - 8, y2: bottom }),
      shape("text", { class: "threshold", x: at, y: top - 14, "text-anchor": anchor }, `threshold ${digits(value)}`),
    ];
  }

  // What the method says of its own run: doubts, charts, small tables

  const isShare = (name) => name.endsWith("fraction") || name.startsWith("share_");

  function cell(value, name, numeric) {
    const kind = numeric ? "number" : "";
    if (typeof value !== "number") return text("td", value ?? "–", kind);
    return el("td", { class: kind }, isShare(name) ? share(value, 1) : digits(value, Number.isInteger(value)));
  }

  function smallTable(table) {
    const numeric = table.columns.map((_, n) => table.rows.some((row) => typeof row[n] === "number"));
    const heads = table.columns.map((name, n) =>
      el("th", { scope: "col", class: numeric[n] ? "number" : "" }, text("bdi", name.replaceAll("_", " "))));
    return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": table.name },
      el("table", { class: "small" },
        el("caption", {}, text("bdi", table.name)),
        el("thead", {}, el("tr", {}, ...heads)),
        el("tbody", {}, ...table.rows.map((row) => el("tr", {}, ...row.map((value, n) => cell(value, table.columns[n], numeric[n])))))));
  }

  function drawAlong() {
    byId("along").hidden = !report.tables.length && !report.figures.length && !report.doubts.length;
    byId("doubts").hidden = !report.doubts.length;
    byId("doubts-list").append(...report.doubts.map((doubt) => text("li", doubt)));
    drawFigures(report.figures, byId("figures"));
    byId("tables").append(...report.tables.map(smallTable));
  }

  // Kept against dropped, or what was made, before and after

  function byScore(direction) {
    return (a, b) => (a.score === null) - (b.score === null) || direction * (a.score - b.score);
  }

  function drawColumn(fate, records) {
    let at = 0;
    const place = el("p", { class: "place", "aria-live": "polite" });
    const body = el("div", { class: "body", tabindex: "0", role: "region", "aria-label": `${fate} record` });
    const back = button("Previous", () => show(at - 1), { "aria-label": `Previous ${fate} record` });
    const next = button("Next", () => show(at + 1), { "aria-label": `Next ${fate} record` });
    function show(wanted) {
      at = wanted;
      const row = records[at];
      place.textContent = `${integer.format(at + 1)} of ${integer.format(records.length)}`;
      back.setAttribute("aria-disabled", at === 0);
      next.setAttribute("aria-disabled", at === records.length - 1);
      body.replaceChildren(
        el("p", { class: "verdict" },
          ...(row.score === null ? ["not scored"] : [el("b", {}, digits(row.score)), " score"]), text("bdi", row.id, "id")),
        el("p", { class: "why" }, pill(row.action), " ", text("bdi", row.reason)),
        conversation(row),
      );
      body.scrollTop = 0;
    }
    const title = el("h3", {}, fate[0].toUpperCase() + fate.slice(1));
    show(0);
    return el("article", { class: fate }, el("header", {}, title, place, el("div", { class: "buttons" }, back, next)), body);
  }

  function drawPair() {
    const made = ["replace", "create"].find((action) => report.rows.some((row) => row.action === action));
    const ours = report.rows.filter((row) => made ? row.action === made : OUTPUT.has(row.action)).sort(byScore(-1));
    const dropped = report.rows.filter((row) => row.action === "drop").sort(byScore(1));
    const columns = [[FATE.get(made ?? "keep"), ours], ["dropped", dropped]].filter(([, rows]) => rows.length);
    const order = { kept: "from the highest score down", dropped: "from the lowest score up" };
    const orders = columns.map(([fate]) => `${fate} records ${order[fate] ?? order.kept}`).join(", ");
    const scored = [...ours, ...dropped].some((row) => row.score !== null);
    byId("pair").parentNode.hidden = !columns.length;
    byId("pair-title").textContent = made === "replace" ? "Before and after" : made ? "What was created"
      : columns.length === 1 ? `What was ${columns[0][0]}` : "Kept against dropped";
    byId("pair-lead").hidden = !scored;
    byId("pair-lead").textContent = `${orders[0]?.toUpperCase() ?? ""}${orders.slice(1)}.`;
    byId("pair").append(...columns.map(([fate, rows]) => drawColumn(fate, rows)));
  }

  // Table of records

  const collator = new Intl.Collator("en", { numeric: true });
  const COLUMNS = [
    { key: "score", words: "Score", first: -1 },
    { key: "action", words: "Action", first: 1 },
    { key: "line", words: "Line in the file", first: 1 },
    { key: "id", words: "Id", first: 1 },
    { key: null, words: "Reason" },
  ];
  const view = { words: "", action: "", key: null, direction: 1, page: 0, found: report.rows };
  let haystack = null; // what the search looks through, made at the first search

  function compare(a, b) {
    const [p, q] = [a[view.key], b[view.key]];
    if (p === null || q === null) return (p === null) - (q === null);
    return view.direction * (typeof p === "number" ? p - q : collator.compare(p, q));
  }

  function find() {
    if (view.words) haystack ??= new Map(report.rows.map((row) =>
      [row, [row.id, row.reason, ...[...row.before, ...row.messages].map(([, words]) => words)].join("\n").toLowerCase()]));
    view.found = report.rows.filter((row) =>
      (!view.action || row.action === view.action) && (!view.words || haystack.get(row).includes(view.words)));
    if (view.key) view.found.sort(compare);
    view.page = 0;
    showRows();
  }

  function glimpse(row) {
    const [, words] = row.messages.find(([role]) => role === "user") ?? row.messages[0] ?? ["", ""];
    return words.slice(0, 240).replace(/[\ud800-\udbff]$/, "").replace(/\s+/g, " ");
  }

  function tableRow(row, number) {
    const opened = `record-${number}`;
    const opener = button(text("bdi", row.id), toggle, { class: "open", "aria-expanded": "false", "aria-controls": opened });
    const line = el(
      "tr", { class: "row" },
      el("td", { class: "score" }, digits(row.score)),
      el("td", {}, pill(row.action)),
      el("td", { class: "line" }, row.line === null ? "–" : String(row.line)),
      el("th", { scope: "row" }, opener, text("span", glimpse(row), "glimpse")),
      text("td", row.reason, "reason"),
    );
    const detail = el("tr", { class: "detail", id: opened, hidden: "" });
    function toggle() {
      detail.hidden = !detail.hidden;
      opener.setAttribute("aria-expanded", String(!detail.hidden));
      if (!detail.hasChildNodes()) detail.append(el("td", { colspan: COLUMNS.length }, ...full(row)));
    }
    return [line, detail];
  }

  function showRows() {
    const first = view.page * PAGE_SIZE;
    const pages = Math.max(1, Math.ceil(view.found.length / PAGE_SIZE));
    const visible = view.found.slice(first, first + PAGE_SIZE).flatMap((row, i) => tableRow(row, first + i));
    const none = el("tr", {}, el("td", { colspan: COLUMNS.length },
      empty("No record matches; shorten the search or choose all actions.")));
    byId("body").replaceChildren(...(visible.length ? visible : [none]));
    byId("count").textContent = view.found.length === report.rows.length ? count(report.rows.length, "record")
      : `${integer.format(view.found.length)} of ${count(report.rows.length, "record")}`;
    byId("pager").hidden = pages === 1;
    byId("pager-place").textContent = `Page ${integer.format(view.page + 1)} of ${integer.format(pages)}`;
    for (const move of byId("pager").querySelectorAll("button")) {
      move.setAttribute("aria-disabled", move.dataset.back ? view.page === 0 : view.page === pages - 1);
    }
    for (const head of byId("heads").children) {
      if (!head.dataset.key) continue;
      const sorted = view.direction > 0 ? "ascending" : "descending";
      head.setAttribute("aria-sort", head.dataset.key === view.key ? sorted : "none");
    }
  }

  function turn(page) {
    view.page = Math.min(Math.ceil(view.found.length / PAGE_SIZE) - 1, page);
    showRows();
    byId("tools").scrollIntoView({ block: "start" });
  }

  function sortBy(column) {
    view.direction = view.key === column.key ? -view.direction : column.first;
    view.key = column.key;
    find();
  }

  function drawTable() {
    const given = report.rows.filter((row) => row.action !== "create").length;
    byId("sample").hidden = given + report.broken.length >= report.total;
    byId("sample").textContent = `Showing ${integer.format(report.rows.length)} of ${count(report.total, "record")}; `
      + "all of them are in decisions.parquet.";
    if (!report.rows.length) return byId("browser").replaceChildren(empty("There are no records to show."));
    byId("heads").append(...COLUMNS.map((column) => column.key
      ? el("th", { scope: "col", class: column.key, "data-key": column.key }, button(column.words, () => sortBy(column)))
      : el("th", { scope: "col", class: "reason" }, column.words)));
    const actions = [...FATE.keys()].filter((action) => report.rows.some((row) => row.action === action));
    byId("action").append(el("option", { value: "" }, "all"),
      ...actions.map((action) => el("option", { value: action }, FATE.get(action))));
    const back = { "data-back": "yes" };
    byId("pager").append(
      button("First", () => turn(0), back), button("Previous", () => turn(view.page - 1), back),
      el("p", { id: "pager-place" }),
      button("Next", () => turn(view.page + 1)), button("Last", () => turn(Infinity)),
    );
    byId("tools").addEventListener("submit", (event) => event.preventDefault());
    byId("tools").addEventListener("input", () => {
      view.words = byId("search").value.trim().toLowerCase();
      view.action = byId("action").value;
      find();
    });
    showRows();
  }

  // Unreadable lines

  function drawBroken() {
    if (!report.broken.length) return;
    byId("unreadable").hidden = false;
    byId("broken-lead").textContent = `${count(report.broken.length, "line")} of the input could not be read.`;
    const build = (line) => el(
      "li", {},
      el("p", {}, text("b", line.place), " ", text("span", line.code, "pill other"), " ",
        ...(line.id === "" ? [] : [text("code", line.id), " "]), text("bdi", line.message)),
      line.raw === "" ? empty("The line is empty.")
        : el("pre", { dir: "auto", tabindex: "0", "aria-label": "The line as it was found" }, line.raw),
    );
    byId("broken").append(...growing(report.broken, build, "ol", "broken", PAGE_SIZE, "line"));
  }

  for (const draw of [drawTheme, drawHead, drawFunnel, drawScores, drawAlong, drawPair, drawTable, drawBroken]) draw();
})();
