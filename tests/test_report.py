"""The report: the csv is read back, and the page shows what is known without other files."""

import json
import re

import numpy as np
import pytest
from small_run import evaluated_run

import envs
from ad import pipeline
from ad.data.histories import HistoryStore
from ad.data.store import load_history
from ad.errors import CorruptError
from ad.evaluation.results import read_results
from ad.evaluation.source_returns import data_returns, is_flat
from ad.reporting import tables
from ad.reporting.charts import returns_histogram
from ad.reporting.record import record
from ad.reporting.report import report, run_page


@pytest.fixture(scope="module")
def run(collected):
    run = evaluated_run(collected("reported"))
    record(run)
    report(run)
    return run


@pytest.fixture(scope="module")
def results(run) -> dict:
    return json.loads((run.folder / "results.json").read_text())


def charts(page: str) -> list[dict]:
    source = re.search(r'<script type="application/json" id="charts">(.*?)</script>', page)
    return json.loads(source[1])


@pytest.fixture(scope="module")
def page(run) -> str:
    return (run.folder / "report.html").read_text()


def test_results_come_back_from_the_csv_as_they_were_evaluated(run):
    held_out = read_results(run.folder / "results.csv")["held_out"]
    assert (held_out.tasks == run.split.held_out_tasks).all()
    assert held_out.returns.shape == (3, 2, 12) == held_out.lengths.shape
    row = (run.folder / "results.csv").read_text().splitlines()[1].split(",")
    values = (held_out.returns, held_out.lengths, held_out.successes)
    values = (*values, held_out.reward_in_context)
    assert [float(cell) for cell in row[4:]] == [array[0, 0, 0] for array in values]


DAMAGES = {
    "a row is gone": lambda lines: lines[:-1],
    "a column has another name": lambda lines: [lines[0].replace("length", "width"), *lines[1:]],
    "a cell holds no finite number": lambda lines: [*lines[:-1], lines[-1][:-1] + "nan"],
    "a split is gone": lambda lines: [line for line in lines if not line.startswith("train")],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_csv_is_a_sentence(run, tmp_path, damage):
    lines = (run.folder / "results.csv").read_text().splitlines()
    damaged = DAMAGES[damage](lines)
    (tmp_path / "results.csv").write_text("".join(f"{line}\n" for line in damaged))
    with pytest.raises(CorruptError, match="not a complete results file"):
        read_results(tmp_path / "results.csv")


def test_the_page_has_its_charts_and_videos(page):
    kinds = [chart["kind"] for chart in charts(page)]
    assert kinds == ["lines", "map", "columns"]
    assert page.count("data:video/mp4;base64,") == 2  # the held-out one and a source agent


def test_the_learning_curve_has_the_model_and_every_reference(page, results):
    curve = charts(page)[0]
    shown = {name: own for name, own in results["references"].items() if name != "source_end"}
    assert {tables.reference_of(*item)[0] for item in shown.items()} <= set(curve["rows"])
    assert curve["rows"][:2] == ["model, held-out tasks (3)", "model, train tasks (5)"]
    last = np.mean(curve["values"][0][-10:])
    assert last == pytest.approx(results["splits"]["held_out"]["return_last10"], abs=1e-4)
    assert curve["low"][0][0] <= curve["values"][0][0] <= curve["high"][0][0]


def test_the_page_has_the_scores_every_task_and_the_configuration(run, page, results):
    assert f"{results['splits']['held_out']['nauc']:.3f}" in page
    for task in run.split.all_tasks:
        assert f"<td>({task[0]}, {task[1]})</td>" in page
    assert "num_train_tasks: 5" in page and results["config_hash"] in page


def test_what_a_user_writes_is_shown_and_not_run(run, results):
    named = results | {"name": "<script>alert(1)</script>"}
    shown = run_page(run, named, returns_histogram(np.ones(2))).html()
    assert "<script>alert" not in shown and "&lt;script&gt;" in shown


SILENT = ["--env.id", "Silent-v0", "--env.kwargs", "{}", "--split.num_train_tasks", "4"]


@pytest.fixture
def worlds(monkeypatch):
    """Register the worlds of the tests."""
    monkeypatch.setitem(envs.REGISTRY, "Silent-v0", "worlds:Silent")


def test_a_world_that_tells_nothing_has_a_report_without_the_sections_of_the_unknown(
    worlds, smoke, tmp_path, capsys
):
    run = evaluated_run(smoke(tmp_path, *SILENT, "--model.encoder", "table"))
    pipeline.record(run)
    assert "Silent-v0 cannot draw its episodes" in capsys.readouterr().out
    page = report(run).read_text()
    unknown = "optimal returns, successes, maps, videos"
    assert f"Silent-v0 does not provide: {unknown}.</p>" in page
    titles = re.findall("<h2>(.*)</h2>", page)
    assert titles == ["Learning curve", "Scores and references", "Details"]
    assert "tasks solved" not in page and "goal" not in page.split("<h1>")[1]
    assert not re.search(r"\bnan\b", page.lower())
    (header, *_) = (run.folder / "table.md").read_text().splitlines()
    assert header == "|  | return, last 10 |"


def test_the_page_shows_the_returns_of_the_training_data(run, page):
    returns = data_returns(run)
    histories = HistoryStore(run.config)
    counted = 0
    for task in run.split.train_tasks:  # three of four actors are trained on
        arrays = load_history(histories.folder(task)).arrays
        counted += (arrays["terminated"] | arrays["truncated"])[:3].sum()
    assert len(returns) == counted and f"{counted:,} episodes: mean return" in page
    assert "Returns of the training data" in page


@pytest.mark.parametrize(
    ("first", "last", "optimal", "flat"),
    [
        ([-201, -201], [-200, -200], None, True),
        ([0.1, 0.2], [0.8, 0.9], 1.0, False),
        ([0.0] * 6, [3.0, -3.0, 2.9, -2.9, 3.1, -2.0], None, True),  # a rise by chance
        ([0.95, 0.96], [0.95, 0.96], 1.0, False),  # there is nothing left to learn
        ([0.0, np.nan], [0.0, 1.0], None, True),
        ([np.nan], [np.nan], None, False),
    ],
)
def test_a_learning_curve_that_does_not_rise_is_flat(first, last, optimal, flat):
    assert is_flat(np.array([first, last], float).T, optimal) == flat
