// A reader of a report on refined records: open one, look at what changed.
function look() {
  seen.sections = all("section").filter((section) => !section.hidden).map((section) => section.querySelector("h2").textContent);
  seen.columns = texts("#pair h3");
  seen.shown = texts("#pair .id");
  seen.bars = all("#funnel .track").map((track) => track.querySelector(".bar") !== null);
  seen.scores = texts("#body td.score");
  seen.head = texts("#heads .line")[0];
  press("#body .open");
  seen.sides = texts(".detail .side");
  seen.words = texts(".detail .change .words");
  seen.gone = texts(".detail del");
  seen.new = texts(".detail ins");
  press("#body .row:nth-of-type(3) .open");
  seen.unmarked = all("#body .detail:nth-of-type(4) ins, #body .detail:nth-of-type(4) del").length;
  seen.tables = all("#tables table").map((table) => [...table.querySelectorAll("caption, th, td")].map((cell) => cell.textContent));
  type("search", "rhine");
  seen.found = texts("#body .open");
}
