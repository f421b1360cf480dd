"""The table of totals: what it has, and that the worlds give the published totals."""

from types import SimpleNamespace

import numpy as np
import pytest

from ad.cli import VERBS, exit_code
from ad.reporting import totals
from ad.reporting.totals import BASELINES, agrees

DIFFERENT = {("PSRL", 10): 133.4}  # by baseline and periods: totals that were measured here
CHECKS = [baseline for baseline in BASELINES if baseline.constants_known]


@pytest.mark.slow
@pytest.mark.parametrize("baseline", CHECKS, ids=lambda own: f"{own.name}, {own.family.name}")
def test_totals_over_1000_tasks_are_the_published_ones(baseline):
    found = totals.total_rewards(baseline)
    for (periods, published), total in zip(baseline.published.items(), found, strict=True):
        measured = DIFFERENT.get((baseline.name, periods))
        assert agrees(total, published) == (measured is None)
        assert measured is None or total.mean() == pytest.approx(measured, abs=totals.ROUNDING)


def test_the_table_has_each_published_total_beside_that_of_a_source(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(totals, "NUM_TASKS", 3)
    page = tmp_path / "page.md"
    page.write_text("<!-- table of totals -->\n<!-- /table of totals -->\n")
    assert exit_code(VERBS["totals"], ["--update", str(page)]) == 0
    text = capsys.readouterr().out
    assert text.strip() in page.read_text()
    rows = [line.strip("| ").split(" | ") for line in text.splitlines()[2:]]
    assert len(rows) == sum(len(baseline.published) for baseline in BASELINES)
    first = next(row for row in rows if row[1] == "UCB1")
    assert first[:5] == ["Bernoulli bandit, 5 arms", "UCB1", "exploration 2.0", "10 pulls", "6.7"]
    assert {row[-1] for row in rows if row[1] in ("UCB1", "OPSRL")} == {"–"}
    assert {row[-1] for row in rows if row[1] == "random"} <= {"yes", "no"}
    periods = {row[3] for row in rows if row[0] == "random MDP"}
    assert periods == {"10 episodes", "25 episodes", "50 episodes", "100 episodes"}


def test_a_total_is_the_sum_of_the_rewards_up_to_a_period(monkeypatch):
    def pays_the_task_at_each_step(config, tasks, settings):
        rewards = np.broadcast_to(tasks, (4, len(tasks), 1))
        chunk = SimpleNamespace(arrays={"reward": rewards})
        return SimpleNamespace(run=lambda steps: [chunk] * (steps // 4))

    monkeypatch.setattr(totals, "NUM_TASKS", 3)
    monkeypatch.setattr(totals, "new_source", pays_the_task_at_each_step)
    pulls, episodes = (totals.total_rewards(BASELINES[number]) for number in (0, -1))
    assert pulls.tolist() == [[0, 10, 20], [0, 100, 200], [0, 500, 1000]]
    assert episodes[:, 1].tolist() == [100, 250, 500, 1000]


def test_totals_agree_within_three_standard_errors_of_their_difference_and_the_rounding():
    total = np.array([9.0, 11.0])  # mean 10, standard error 1, that of a difference 1.41
    assert agrees(total, 14.28) and not agrees(total, 14.30)
    assert agrees(total, 5.72) and not agrees(total, 5.70)
