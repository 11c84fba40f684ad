"""Reports to draw: one full of ordinary records, one where every text is hostile."""

from __future__ import annotations

from itertools import product

import pytest

from tunesift.report.data import Bar, Broken, Histogram, ReportData, Row, Table

BREAKOUTS = ("", '"', "'>", "-->", "<!--", "]]>", "</script>", "</style>", "</title>", "</pre></td></tr>")
BODIES = (
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "<svg onload=alert(1)>",
    "<iframe src=https://example.invalid/>",
    "<link rel=stylesheet href=https://example.invalid/a.css>",
    "<style>*{background:url(https://example.invalid/b)}</style>",
    '<meta http-equiv="refresh" content="0;url=https://example.invalid/">',
    "<base href=https://example.invalid/>",
    "<form action=https://example.invalid/><input name=id autofocus onfocus=alert(1)>",
    "<a href=javascript:alert(1)>x</a>",
    "<template><img src=x></template>",
    "<!--head--><!--data--><!--script-->",
    "{{7*7}} {% include 'x' %} ${7*7} #{7*7} <%= 7*7 %>",
    "\\u003cimg src=x onerror=alert(1)\\u003e \\",
    "&lt;img src=x onerror=alert(1)&gt; &amp;",
    "a\u2028b\u2029c\u0085d\ufeffe\u0000f\r\ng\th\x1b[31mi\x7f",
    "__proto__ constructor toString",
    "\u202eright to left\u202c שלום العربية",
    "👩‍👩‍👧‍👦🇦🇺 \ud800 half a pair \udc00 e\u0301",
    "w" * 10_000,
)
PAYLOADS = tuple(start + body for start, body in product(BREAKOUTS, BODIES))

ORDINARY = 1_000


@pytest.fixture(scope="session")
def hostile() -> ReportData:
    """200 payloads, each in every text field of a record; all at once where there is one field."""
    everything = "\n".join(PAYLOADS)
    rows = tuple(
        Row(
            f"{place}{text}",
            place,
            text,
            text,
            float(place),
            {text: 0.5},
            (("user", text), (text, text)),
            (("user", f"{text} before"), (text, "before")),
        )
        for place, text in enumerate(PAYLOADS)
    )
    spoken = tuple(
        Row(action + everything, 1, action, everything, 1.0, {}, (("user", everything), ("assistant", "x")))
        for action in ("keep", "drop")
    )
    return ReportData(
        title=everything,
        method=everything,
        run_id=everything,
        created=everything,
        command=everything,
        facts=tuple((text, text) for text in PAYLOADS),
        funnel=tuple(Bar(text, 1) for text in PAYLOADS),
        reasons=tuple(Bar(text, 1) for text in PAYLOADS),
        histogram=Histogram(everything, 0.0, 1.0, (1, 2), (3, 4), 0.5, 5),
        rows=spoken + rows,
        total=202,
        broken=tuple(Broken(text, text, text, text, text) for text in PAYLOADS),
        tables=(Table(everything, (everything, "n"), ((everything, 1.5), (None, 2))),),
    )


def ordinary_row(place: int) -> Row:
    """Every third record is kept, every hundredth has no score, and scores do not follow the lines."""
    kept = place % 3 == 0
    score = None if place % 100 == 99 else (place * 7919 % ORDINARY) / ORDINARY
    return Row(
        id=f"r{place}",
        line=place + 1,
        action="keep" if kept else "drop",
        reason="among the highest" if kept else "below the threshold",
        score=score,
        parts={"conditioned": 1.23456789, "direct": 2.0},
        messages=(("user", f"Say the number {place}."), ("assistant", f"It is  {place},\nNO less.")),
    )


@pytest.fixture(scope="session")
def ordinary() -> ReportData:
    rows = tuple(ordinary_row(place) for place in range(ORDINARY))
    return ReportData(
        title="Numbers",
        method="IFD",
        run_id="9f3c",
        created="2026-11-21 10:00 UTC",
        command="tunesift cherry numbers.json",
        facts=(("Seed", "0"),),
        funnel=(Bar("Records read", 52_002), Bar("Kept", 17_334), Bar("Dropped", 34_668)),
        reasons=tuple(Bar(f"reason {place}", 30 - place) for place in range(30)),
        histogram=Histogram("ifd", 0.0, 1.0, (0, 10, 20), (30, 40, 0), 0.66, 12),
        rows=rows,
        total=52_002,
        broken=(),
    )


@pytest.fixture(scope="session")
def bare() -> ReportData:
    """A run over a file of none."""
    return ReportData("Nothing", "IFD", "0", "now", "tunesift cherry", (), (), (), None, (), 0, ())
