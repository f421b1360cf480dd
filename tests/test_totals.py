"""Total rewards over 1,000 tasks, beside those that a paper published."""

import pytest

from scripts.readme_tables import TOTALS_PAGE, read_table, total_cells

TABLE = read_table(TOTALS_PAGE, "totals")
ROWS = [dict(zip(TABLE.header, row, strict=True)) for row in TABLE.rows]
# Sources whose settings are published, at the largest number of pulls or episodes.
CHECKS = [row for row in ROWS if row["agrees"] != "–" and row["after"].split()[0] in ("500", "100")]
LAST = {(row["world"], row["source"]): row for row in CHECKS if row["source"] != "random"}


@pytest.mark.slow
@pytest.mark.parametrize("world", [*LAST], ids=", ".join)
def test_totals_over_1000_tasks_are_the_published_ones(world):
    assert total_cells(LAST[world])["agrees"] == "yes"


def test_a_row_of_the_table_can_be_computed(monkeypatch):
    monkeypatch.setattr("scripts.readme_tables.TOTALS", 50)
    row = next(row for row in ROWS if row["source"] == "UCB1")
    mean = float(total_cells(row)["here"].split()[0])
    assert mean == pytest.approx(5.7, abs=1) and total_cells(row)["agrees"] == "–"
