// A reader of a report with charts: what is drawn where, what the legend says, and the same in numbers.
function look() {
  const box = (node) => { const { left, right, top, bottom } = node.getBoundingClientRect(); return [left, right, top, bottom]; };
  seen.doubts = [document.getElementById("doubts").hidden, texts("#doubts li"), texts("#along h3, #along caption")];
  seen.figures = all("figure").map((figure) => {
    const find = (query) => [...figure.querySelectorAll(query)];
    const words = (query) => find(query).map((node) => node.textContent);
    const svg = find(".plot > svg")[0];
    if (!svg) return { empty: words(".empty") };
    find("summary")[0].click();
    find("details")[0].dispatchEvent(new Event("toggle"));
    return {
      title: words("h3")[0], caption: words(".lead")[0], legend: words(".keys li"), note: words(".note"),
      named: svg.getAttribute("role") + " " + svg.getAttribute("aria-labelledby").split(" ").map((id) => document.getElementById(id).textContent).join(": "),
      axes: words(".plot text.name"),
      marks: words(".plot > svg > text:not(.name):not(.label)"),
      labels: find(".plot text.label").map((node) => [node.textContent, Number(node.getAttribute("y"))]),
      traces: find(".plot .trace").map((node) => [node.textContent, node.getAttribute("class"), node.getAttribute("stroke-dasharray"),
        node.getAttribute("points").split(", ").map((point) => point.split(" ").map(Number))]),
      signs: find(".plot .sign").map((node) => [node.textContent, node.getAttribute("class"), node.tagName]),
      bands: find(".plot svg svg > *").map((node) => [node.tagName, node.getAttribute("points")]),
      size: [Number(svg.getAttribute("width")), Number(svg.getAttribute("height"))],
      within: find(".plot text").filter((node) => { const [l, r] = box(node); return l < 0 || r > innerWidth; }).length,
      cut: find(".plot > svg > text").filter((node) => box(node)[1] > box(svg)[1] + 0.5).map((node) => node.textContent),
      drawn: find(".plot .trace, .key .trace").filter((node) => getComputedStyle(node).display === "none").length,
      head: words("details thead th"),
      rows: find("details tbody tr").map((row) => [...row.children].map((cell) => cell.textContent)),
      reach: find("details .scroll").map((node) => [node.tabIndex, node.getAttribute("role"), node.getAttribute("aria-label")]),
    };
  });
  seen.shares = all("#tables td.number").map((cell) => cell.textContent);
  seen.wide = document.documentElement.scrollWidth > innerWidth;
}
