"""The HTML pages of the leaderboard in a browser: every world and score, light and dark."""

from pathlib import Path

import pytest
from browser import MISSING, browser

PAGES = sorted((Path(__file__).parent.parent / "configs" / "records").glob("leaderboard*.html"))

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
CHOOSE = """
const [id, n] = arguments, menu = document.getElementById(id);
menu.selectedIndex = n;
menu.dispatchEvent(new Event("change"));
return menu.value;
"""
LENGTH = "return document.getElementById(arguments[0]).length"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_shows_each_world_and_score_without_an_error(page):
    with browser("--window-size=500,900") as session:
        session.open(page.as_uri())
        for number in range(session.script(LENGTH, "metric")):
            session.script(CHOOSE, "metric", number)
            assert session.script("return document.querySelectorAll('#summary tbody tr').length")
        for number in range(session.script(LENGTH, "world")):
            session.script(CHOOSE, "world", number)
            assert session.script("return document.querySelectorAll('#curves path').length")
            assert session.script("return document.querySelectorAll('#maps svg').length")
        wide = "return document.documentElement.scrollWidth > document.documentElement.clientWidth"
        assert not session.script(wide)  # tables scroll, the page does not
        assert session.errors() == []


@pytest.mark.parametrize("page", PAGES[:1], ids=lambda page: page.stem)
def test_a_page_is_dark_where_the_system_is(page):
    color = "return getComputedStyle(document.body).backgroundColor"
    with browser() as light, browser("--force-dark-mode") as dark:
        light.open(page.as_uri())
        dark.open(page.as_uri())
        assert light.script(color) != dark.script(color)
