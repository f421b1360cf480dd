"""Pages: the blocks as HTML and as Markdown."""

import json
import re

import numpy as np
import pytest

from ad.reporting.page import Chart, Choice, Code, Details, Page, Section, Table, Text, Tiles

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
