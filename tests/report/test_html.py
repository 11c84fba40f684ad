"""Does the page carry the data exactly, and nothing else from anywhere?"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from types import MappingProxyType

from tunesift.report.data import Histogram, ReportData
from tunesift.report.html import render


class Blocks(HTMLParser):
    """Tags, attributes and the text of script and style blocks, as a browser would cut them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.texts.append((self.tags[-1] if self.tags else "", data))

    def policy(self) -> str:
        return next(value or "" for _, value in self.attributes if (value or "").startswith("default-src"))


def data_block(page: str) -> str:
    """What a browser takes for the text of the block: everything up to the first end of a script."""
    return page.split('id="report-data">', 1)[1].split("</script", 1)[0]


def as_json(data: ReportData) -> object:
    """The same data by another road: tuples as lists, halves of pairs written one after the other as one."""
    return json.loads(json.dumps(dataclasses.asdict(data)))


def digest(text: str) -> str:
    return "'sha256-" + base64.standard_b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode() + "'"


def test_hostile_texts_come_back_exactly(hostile: ReportData) -> None:
    assert json.loads(data_block(render(hostile))) == as_json(hostile)


def test_the_page_can_be_written_as_utf_8_and_read_back(hostile: ReportData) -> None:
    written = render(hostile).encode("utf-8")
    assert json.loads(data_block(written.decode("utf-8"))) == as_json(hostile)


def test_no_character_of_the_data_can_end_its_block(hostile: ReportData) -> None:
    assert not re.search("[<>&\u2028\u2029\ud800-\udfff]", data_block(render(hostile)))


def test_hostile_texts_add_no_tag_and_no_attribute(hostile: ReportData, bare: ReportData) -> None:
    with_them, without = Blocks(render(hostile)), Blocks(render(bare))
    assert with_them.tags == without.tags
    assert with_them.attributes == without.attributes


def test_the_policy_names_the_hash_of_each_inline_block_and_nothing_more(ordinary: ReportData) -> None:
    page = render(ordinary)
    style = re.findall("<style>(.*?)</style>", page, re.DOTALL)
    script = re.findall("<script>(.*?)</script>", page, re.DOTALL)
    assert len(style) == len(script) == 1
    assert Blocks(page).policy() == (
        f"default-src 'none'; script-src {digest(script[0])}; style-src {digest(style[0])}; img-src data:"
    )


def test_the_policy_stands_before_anything_it_governs(ordinary: ReportData) -> None:
    page = render(ordinary)
    assert page.index("Content-Security-Policy") < min(page.index("<style"), page.index("<script"))


def test_the_page_refers_to_nothing_outside_itself(bare: ReportData) -> None:
    page = render(bare)
    assert not re.search(r"https?:|//[a-z]+\.|url\(|@import|\bsrc=|<link|<iframe|<img", page)
    links = {value for name, value in Blocks(page).attributes if name in {"href", "action", "xlink:href"}}
    assert links == {"#records"}


def test_the_script_makes_no_markup_from_text(bare: ReportData) -> None:
    page = render(bare)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(", page)


def test_numbers_that_are_not_finite_become_null(ordinary: ReportData) -> None:
    row = replace(ordinary.rows[0], score=float("nan"), parts=MappingProxyType({"a": float("-inf"), "b": 1.0}))
    histogram = Histogram("ifd", 0.0, float("inf"), (1,), (1,), float("nan"), 0)
    block = json.loads(data_block(render(replace(ordinary, rows=(row,), histogram=histogram))))
    assert block["rows"][0]["score"] is None
    assert block["rows"][0]["parts"] == {"a": None, "b": 1.0}
    assert (block["histogram"]["high"], block["histogram"]["threshold"]) == (None, None)


def test_one_report_makes_one_page(ordinary: ReportData) -> None:
    assert render(ordinary) == render(ordinary)


def test_style_and_script_stay_small(bare: ReportData) -> None:
    assert len(render(bare).encode()) < 60_000
