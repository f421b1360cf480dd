"""Pages: the blocks as HTML and as Markdown, and the places of tables in a file."""

import json
import re

import numpy as np
import pytest

from ad.errors import ConfigError
from ad.reporting.page import Chart, Choice, Code, Details, Page, Section, Table, Text, Tiles
from ad.runtime.files import replace_between

TABLE = Table(["run", "score", "unknown"], [["**a**", "0.5 [0.4, 0.6]", "–"]])
CHART = Chart("lines", [1, 2], np.array([[0.5, np.nan]]), ["<model>"], title="curve")
BLOCKS = [
    Text("a `b` **c** [d](e.html) <f>"),
    TABLE,
    Tiles([("0.5", "NAUC", "95 %")]),
    Details("more", [Code("x: 1")]),
    Choice("world", {"room": [CHART], "bandit": [Text("none")]}),
]


@pytest.fixture(scope="module")
def page():
    return Page("demo", "a page", [Section("", BLOCKS), Section("The end", [CHART])])


def test_a_page_is_one_file_that_loads_nothing(page):
    html = page.html()
    assert not re.findall(r'(?:src|href)="(?!#|e\.html|data:)', html)
    assert "function chart(" in html and "--c7" in html


def test_no_text_of_a_page_becomes_markup_but_its_own_markdown(page):
    html = page.html()
    assert 'a <code>b</code> <b>c</b> <a href="e.html">d</a> &lt;f&gt;' in html
    assert "<model>" not in html


def test_the_charts_of_a_page_are_numbered_in_their_order_and_hold_no_nan(page):
    source = re.search(r'<script type="application/json" id="charts">(.*?)</script>', page.html())
    specs = json.loads(source[1])
    assert re.findall(r'data-chart="(\d+)"', page.html()) == ["0", "0"]  # the same chart twice
    assert specs[0]["values"] == [[0.5, None]] and specs[0]["columns"] == [1, 2]


def test_the_markdown_of_a_page_has_its_texts_and_tables(page):
    text = page.markdown()
    for part in ("# demo", "| run | score | unknown |", "- NAUC: **0.5** (95 %)", "### bandit"):
        assert part in text
    assert "## The end" in text


def test_unknown_columns_can_be_left_out():
    assert TABLE.compact().header == ["run", "score"]


def test_tables_take_the_places_between_their_marks_or_the_file_stays_as_it_is(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("before\n<!-- a -->\nold\n<!-- /a -->\n<!-- b -->\n<!-- /b -->\nafter\n")
    replace_between(path, {"b": "second", "a": "first"})
    text = path.read_text()
    assert re.findall(r"^\w+", text, re.MULTILINE) == ["before", "first", "second", "after"]
    with pytest.raises(ConfigError, match="<!-- c -->"):
        replace_between(path, {"a": "new", "c": "third"})
    assert path.read_text() == text
    for other, content in (("nowhere/page.md", None), ("picture", b"\x89PNG\xff\xfe")):
        if content:
            (tmp_path / other).write_bytes(content)
        with pytest.raises(ConfigError, match=other):
            replace_between(tmp_path / other, {"a": "new"})
