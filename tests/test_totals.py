"""The table of totals: what it prints, and that worlds give the totals of a paper."""

import numpy as np
import pytest

from ad.cli import VERBS, exit_code
from ad.reporting import totals
from ad.reporting.totals import PLAYERS, is_printed

EARLIEST = {"PSRL": 50}  # episodes; before, its totals are not those in print
CHECKS = [player for player in PLAYERS if player.checks_its_world]


@pytest.mark.slow
@pytest.mark.parametrize(
    "player", CHECKS, ids=lambda player: f"{player.name}, {player.family.name}"
)
def test_totals_over_1000_tasks_are_those_in_print(player):
    found = totals.totals(player)
    for (periods, printed), total in zip(player.printed.items(), found, strict=True):
        if periods >= EARLIEST.get(player.name, 0):
            assert is_printed(total, printed)


def test_the_table_has_each_printed_total_beside_one_of_here(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(totals, "NUM_TASKS", 3)
    page = tmp_path / "page.md"
    page.write_text("<!-- table of totals -->\n<!-- /table of totals -->\n")
    assert exit_code(VERBS["totals"], ["--update", str(page)]) == 0
    text = capsys.readouterr().out
    assert text.strip() in page.read_text()
    rows = [line.strip("| ").split(" | ") for line in text.splitlines()[2:]]
    assert len(rows) == sum(len(player.printed) for player in PLAYERS)
    first = next(row[:5] for row in rows if row[1] == "UCB1")
    assert first == ["Bernoulli bandit, 5 arms", "UCB1", "exploration 2.0", "10 pulls", "6.7"]
    assert {row[3] for row in rows if row[0] == "random MDP"} == {
        *("10 episodes", "25 episodes", "50 episodes", "100 episodes")
    }


def test_a_total_is_the_sum_of_the_rewards_of_a_life(monkeypatch):
    monkeypatch.setattr(totals, "NUM_TASKS", 3)
    random = next(player for player in PLAYERS if player.name == "random")
    total = totals.totals(random)
    assert total.shape == (3, 3) and (np.diff(total, axis=0) > 0).all()
    assert (total == total.round()).all() and (total.max(1) <= list(random.printed)).all()


def test_a_total_is_printed_within_three_standard_errors_and_the_rounding():
    total = np.array([9.0, 11.0])  # mean 10, standard error 1
    assert is_printed(total, 13.04) and not is_printed(total, 13.06)
    assert is_printed(total, 6.96) and not is_printed(total, 6.94)
