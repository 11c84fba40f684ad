// What a page with pictures is drawn with, and the charts that a method declared. Follows elements.js in one script.
const SVG = byId("plot").namespaceURI;
const shape = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

function ticks(low, high, about) {
  const rough = (high - low) / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5].find((n) => n * power >= rough) ?? 10) * power;
  const decimals = Math.min(12, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
  const first = Math.ceil(low / step - 1e-9);
  const values = Array.from({ length: 2 * about }, (_, i) => (first + i) * step);
  return { values: values.filter((value) => value <= high + step * 1e-9), decimals, step };
}

const drawFigures = (() => {
  const TONES = 5;
  const DASHES = [null, "8 4", "2 3"];
  const TOLD_APART = TONES * DASHES.length;
  const SIGNS = ["dot", "ring", "triangle", "square", "cross"];
  const LABEL = 22;

  const cut = (words) => {
    const signs = Array.from(words);
    return signs.length > LABEL ? `${signs.slice(0, LABEL - 1).join("")}…` : words;
  };
  const spoken = (words) => words.replaceAll("_", " ");
  const named = (axis, chart) => chart[`${axis}_name`] || spoken(chart[axis]);
  const places = (value, decimals) => (decimals ? value.toFixed(decimals) : integer.format(value)).replace("-", "−");
  const short = (value) => String(Number(value.toPrecision(5))).replace("-", "−");

  // Axes end at round numbers, but where lines end; of points, a few that lie far from all others are left outside.

  function extent(values, far) {
    const order = Float64Array.from(values).sort();
    const at = (share) => order[Math.round(share * (order.length - 1))];
    const [low, high, first, last] = [at(0), at(1), at(0.01), at(0.99)];
    return far && high - low > 3 * (last - first) && last > first ? [first, last] : [low, high];
  }

  function axis([low, high], about, whole, exact = false) {
    if (low > 0 && low < high - low) low = 0;
    if (low === high) [low, high] = [low - (Math.abs(low) / 10 || 0.5), high + (Math.abs(high) / 10 || 0.5)];
    const { step: fine } = ticks(low, high, about);
    const step = whole ? Math.max(1, Math.round(fine)) : fine;
    const ends = [low, high];
    [low, high] = [Math.floor(low / step + 1e-9) * step, Math.ceil(high / step - 1e-9) * step];
    const decimals = Math.min(12, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
    const values = Array.from({ length: Math.round((high - low) / step) + 1 }, (_, n) => low + n * step);
    const [from, to] = exact ? ends : [low, high];
    const near = step * 1e-9;
    return { low: from, high: to, values: values.filter((value) => value >= from - near && value <= to + near), decimals };
  }

  function axes(figure, wide) {
    const points = figure.chart.kind === "points";
    const all = (name) => figure.groups.flatMap((group) => group[name]);
    let [x, y] = [extent(all("x"), points), extent(all("y"), points)];
    const square = figure.chart.bands.some((band) => band.slope === 1);
    if (square) x = y = [Math.min(x[0], y[0]), Math.max(x[1], y[1])];
    const whole = all("x").every(Number.isInteger);
    return { x: axis(x, wide ? 8 : 4, whole, !points), y: axis(y, 5, false) };
  }

  // One picture

  function layout(figure, width) {
    const lines = figure.chart.kind === "lines";
    const wide = lines ? width : Math.min(width, 560);
    const labelled = lines && wide >= 640;
    const scales = axes(figure, wide >= 500);
    const height = lines ? 340 : Math.round(wide * 0.86) + 40;
    const marks = scales.y.values.map((value) => places(value, scales.y.decimals).length);
    const longest = figure.groups.slice(0, TOLD_APART).reduce((most, g) => Math.max(most, Array.from(cut(g.name)).length), 0);
    const last = places(scales.x.values.at(-1) ?? 0, scales.x.decimals).length;
    const [left, right] = [Math.max(...marks) * 7 + 18, wide - Math.max(labelled ? 20 + 7 * longest : 14, 2 + 4 * last)];
    const [top, bottom] = [30, height - 46];
    const x = (value) => left + ((value - scales.x.low) / (scales.x.high - scales.x.low)) * (right - left);
    const y = (value) => bottom - ((value - scales.y.low) / (scales.y.high - scales.y.low)) * (bottom - top);
    const inside = (a, b) => a >= scales.x.low && a <= scales.x.high && b >= scales.y.low && b <= scales.y.high;
    return { ...scales, width: wide, height, left, right, top, bottom, at: { x, y }, inside, labelled };
  }

  function frame(chart, plan) {
    const { left, right, top, bottom, at } = plan;
    return [
      ...plan.y.values.flatMap((value) => [
        shape("line", { class: "grid", x1: left, x2: right, y1: at.y(value), y2: at.y(value) }),
        shape("text", { x: left - 8, y: at.y(value) + 4, "text-anchor": "end" }, places(value, plan.y.decimals)),
      ]),
      shape("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }),
      ...plan.x.values.flatMap((value) => [
        shape("line", { class: "axis", x1: at.x(value), x2: at.x(value), y1: bottom, y2: bottom + 5 }),
        shape("text", { x: at.x(value), y: bottom + 20, "text-anchor": "middle" }, places(value, plan.x.decimals)),
      ]),
      shape("text", { class: "name", x: 0, y: top - 16 }, named("y", chart)),
      shape("text", { class: "name", x: (left + right) / 2, y: plan.height - 6, "text-anchor": "middle" }, named("x", chart)),
    ];
  }

  // Bands are cut at the axes by a picture of their own.
  function bands(chart, plan) {
    const { left, right, top, bottom, at } = plan;
    const line = (band, height) => [plan.x.low, plan.x.high].map((x) => [at.x(x) - left, at.y(band.slope * x + height) - top]);
    const drawn = chart.bands.map((band) => {
      const [[x1, y1], [x2, y2]] = line(band, band.low);
      if (band.high === null) return shape("line", { class: "rule", x1, x2, y1, y2 });
      const corners = [[x1, y1], [x2, y2], ...line(band, band.high).reverse()];
      return shape("polygon", { class: "band", points: corners.map((corner) => corner.join(" ")).join(", ") });
    });
    const area = { x: left, y: top, width: right - left, height: bottom - top, overflow: "hidden" };
    return drawn.length ? [shape("svg", area, ...drawn.sort((a, b) => (a.tagName === "line") - (b.tagName === "line")))] : [];
  }

  const look = (n) => (n < TOLD_APART ? `tone-${n % TONES}` : "tone-other");
  const dashes = (n) => {
    const pattern = n < TOLD_APART ? DASHES[Math.floor(n / TONES)] : null;
    return pattern === null ? {} : { "stroke-dasharray": pattern };
  };

  function lines(figure, plan) {
    const drawn = figure.groups.map((group, n) => shape("polyline", { class: `trace ${look(n)}`, ...dashes(n),
      points: group.x.map((x, i) => `${plan.at.x(x).toFixed(1)} ${plan.at.y(group.y[i]).toFixed(1)}`).join(", ") },
    shape("title", {}, group.name)));
    return [...drawn.reverse(), ...(plan.labelled ? labels(figure, plan) : [])];
  }

  // At the end of each line its name, where there is room beside it; the highest first.
  function labels(figure, plan) {
    const ends = figure.groups.slice(0, TOLD_APART).map((group, n) => ({ n, name: group.name, y: plan.at.y(group.y.at(-1)) }));
    const placed = [];
    for (const { n, name, y } of ends.sort((a, b) => a.y - b.y)) {
      const near = [0, -5, 5, -10, 10, -15, 15, -24].map((off) => Math.min(y + off, plan.bottom));
      const free = near.find((at) => placed.every((other) => Math.abs(other.at - at) >= 14));
      if (free !== undefined) placed.push({ n, name, at: free });
    }
    return placed.map(({ n, name, at }) =>
      shape("text", { class: `label ${look(n)}`, x: plan.right + 8, y: at + 4 }, cut(name)));
  }

  function sign(kind, x, y, size = 3) {
    const [left, right, top, bottom] = [x - size, x + size, y - size, y + size].map((n) => n.toFixed(1));
    if (kind === "triangle") return shape("polygon", { points: `${left} ${bottom}, ${right} ${bottom}, ${x.toFixed(1)} ${top}` });
    if (kind === "square") return shape("rect", { x: left, y: top, width: 2 * size, height: 2 * size });
    if (kind === "cross") return shape("path", { d: `M${left} ${top}L${right} ${bottom}M${left} ${bottom}L${right} ${top}` });
    return shape("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: size });
  }

  const signs = (n) => SIGNS[n % SIGNS.length];
  const marked = (n, made) => fill(made, { class: `sign ${look(n)} ${signs(n)}` }, []);

  // What there is least of lies on top.
  function points(figure, plan) {
    const order = figure.groups.map((group, n) => [n, group]).sort((a, b) => b[1].x.length - a[1].x.length);
    return order.flatMap(([n, group]) => group.x.map((x, i) => [x, group.y[i]]).filter(([x, y]) => plan.inside(x, y))
      .map(([x, y]) => fill(marked(n, sign(signs(n), plan.at.x(x), plan.at.y(y))), {},
        [shape("title", {}, `${group.name}: ${short(x)}, ${short(y)}`)])));
  }

  // What stands around the picture

  function key(...drawn) {
    return shape("svg", { class: "key", width: 30, height: 14, viewBox: "0 0 30 14", "aria-hidden": "true" }, ...drawn);
  }

  function legend(figure) {
    const { chart, groups } = figure;
    const counted = chart.kind === "points" && !figure.shown;
    const seen = groups.slice(0, TOLD_APART).map((group, n) => el("li", {},
      chart.kind === "lines" ? key(shape("line", { class: `trace ${look(n)}`, ...dashes(n), x1: 1, x2: 29, y1: 7, y2: 7 }))
        : key(marked(n, sign(signs(n), 20, 7, 4))),
      text("bdi", group.name), ...(counted ? [" ", el("b", {}, integer.format(group.x.length))] : [])));
    const more = groups.length - TOLD_APART;
    if (more > 0) seen.push(el("li", {}, key(shape("line", { class: "trace tone-other", x1: 1, x2: 29, y1: 7, y2: 7 })),
      count(more, "further one")));
    const behind = chart.bands.map((band) => el("li", {}, key(band.high === null
      ? shape("line", { class: "rule", x1: 1, x2: 29, y1: 7, y2: 7 }) : shape("rect", { class: "band", width: 30, height: 14 })),
    text("bdi", band.name)));
    return el("ul", { class: "keys" }, ...seen, ...behind);
  }

  // The same in numbers, made when it is asked for

  function numbers({ chart, groups }) {
    const lined = chart.kind === "lines";
    const heads = lined ? [named("x", chart), ...groups.map((group) => group.name)]
      : [spoken(chart.of), named("x", chart), named("y", chart)];
    let rows = groups.flatMap((group) => group.x.map((x, i) => [group.name, short(x), short(group.y[i])]));
    if (lined) {
      const all = [...new Set(groups.flatMap((group) => group.x))].sort((a, b) => a - b);
      const found = groups.map((group) => new Map(group.x.map((x, i) => [x, group.y[i]])));
      rows = all.map((x) => [short(x), ...found.map((line) => (line.has(x) ? short(line.get(x)) : "–"))]);
    }
    return el("table", { class: "bins" },
      el("thead", {}, el("tr", {}, ...heads.map((words) => el("th", { scope: "col" }, text("bdi", words))))),
      el("tbody", {}, ...rows.map(([first, ...others]) => el("tr", {}, el("th", { scope: "row" }, text("bdi", first)),
        ...others.map((words) => el("td", {}, words))))));
  }

  function inNumbers(figure, title) {
    const place = el("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": `${title}, in numbers` });
    const made = el("details", {}, el("summary", {}, "The same in numbers"), place);
    made.addEventListener("toggle", () => { if (!place.hasChildNodes()) place.append(numbers(figure)); });
    return made;
  }

  function notes(figure) {
    const plan = layout(figure, 720);
    const far = figure.groups.reduce((sum, g) => sum + g.x.filter((x, i) => !plan.inside(x, g.y[i])).length, 0);
    const found = [figure.shown && `Shown: ${figure.shown}.`,
      far && `${count(far, "point")} far from the others, outside the picture.`,
      figure.left_out && `${count(figure.left_out, "row")} without a number, not in the picture.`].filter(Boolean);
    return found.length ? [el("p", { class: "note" }, found.join(" "))] : [];
  }

  function draw(figure, svg) {
    const room = Math.max(260, svg.parentNode.clientWidth || 720);
    if (svg.dataset.room === String(room)) return;
    svg.dataset.room = String(room);
    const plan = layout(figure, room);
    fill(svg, { width: plan.width, height: plan.height, viewBox: `0 0 ${plan.width} ${plan.height}` }, []);
    const inside = figure.chart.kind === "lines" ? lines(figure, plan) : points(figure, plan);
    svg.replaceChildren(...frame(figure.chart, plan), ...bands(figure.chart, plan), ...inside);
  }

  // More lines than can be told apart: those that end highest are.
  function highest(figure) {
    if (figure.chart.kind !== "lines" || figure.groups.length <= TOLD_APART) return figure;
    return { ...figure, groups: figure.groups.toSorted((a, b) => b.y.at(-1) - a.y.at(-1)) };
  }

  function build(given, n, place) {
    const figure = highest(given);
    const name = figure.name.replaceAll("-", " ");
    const title = `${name.slice(0, 1).toUpperCase()}${name.slice(1)}`;
    const heading = fill(text("h3", title), { id: `figure-${n}` }, []);
    const caption = fill(text("p", figure.chart.caption, "lead"), { id: `figure-${n}-caption` }, []);
    if (!figure.groups.length) return place.append(el("figure", {}, heading, empty("There is nothing to draw.")));
    const svg = shape("svg", { role: "img", "aria-labelledby": `figure-${n} figure-${n}-caption` });
    const plot = el("div", { class: "plot" }, svg);
    new ResizeObserver(() => requestAnimationFrame(() => draw(figure, svg))).observe(plot);
    place.append(el("figure", {}, heading, caption, legend(figure), plot, ...notes(figure), inNumbers(figure, title)));
    draw(figure, svg);
  }

  return (figures, place) => figures.forEach((figure, n) => build(figure, n, place));
})();
