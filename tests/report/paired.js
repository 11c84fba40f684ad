// A reader of a report on preference pairs: open one, look at both answers; open a record that is none.
function look() {
  press("#body .open");
  seen.roles = texts(".detail .role");
  seen.sides = texts(".detail .side");
  seen.words = texts(".detail .words");
  press("#body .row:nth-of-type(3) .open");
  seen.alone = texts("#body .detail:nth-of-type(4) .words");
  seen.split = all("#body .detail:nth-of-type(4) .change").length;
  type("search", "the elbe");
  seen.found = texts("#body .open");
}
