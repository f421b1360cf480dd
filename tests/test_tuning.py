"""The measure `learning`: a search for settings of a source, what it keeps, ranks and refuses."""

import dataclasses

import numpy as np
import pytest
from processes import ROOT
from sweeps import make, page_of, write_sweep

from ad.collection.collect import collect
from ad.config.parser import load, load_file
from ad.data.curves import LearningCurves
from ad.data.histories import HistoryStore
from ad.data.schema import TransitionChunk
from ad.data.store import load_history
from ad.runtime.run import Run
from ad.sweeps.learning import Search, rank, read_search
from ad.sweeps.plan import Sweep
from ad.sweeps.records import add_records, read_records
from ad.sweeps.run import new_measure

SOURCE = "source.settings."
CONTENT = {
    "experiment": str(ROOT / "configs/smoke.yaml"),
    "settings": {"device": "cpu", "threads": 1, "source.algorithm": "a2c"},
    "seeds": [0],
    "heading": "settings",
    "grid": {f"{SOURCE}learning_rate": [1e-3, 0.01], f"{SOURCE}hidden": [8, 16]},
    "search_tasks": 2,
}


def search(sweep: Sweep) -> Search:
    """Return what the records of `sweep` say."""
    runs, records = sweep.planned_runs(), read_records(sweep.records)
    return read_search(sweep, runs, [records[run.key] for run in runs])


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Sweep:
    """A search over four settings in the 3 x 3 room; tests only read it."""
    sweep = write_sweep(tmp_path_factory.mktemp("search"), CONTENT, "tune")
    make(sweep, sweep.path.parent / "root")
    return sweep


def test_a_searched_curve_is_that_of_the_history_collected_with_its_settings(made, tmp_path):
    run = next(r for r in made.planned_runs() if r.row == "hidden=8 learning_rate=0.01")
    (own,) = [n for n, other in enumerate(made.planned_runs()) if other is run]
    opened = Run.open(dataclasses.replace(run.config, root=str(tmp_path)))
    collect(opened)
    found = search(made)
    for n, task in enumerate(opened.split.train_tasks[:2]):
        arrays = load_history(HistoryStore(opened.config).folder(task)).arrays
        curves = LearningCurves(opened.world, 1, 4, 1000, 4)
        curves.add(TransitionChunk({name: array.T[:, None] for name, array in arrays.items()}))
        for name, row in curves.curves().items():
            kept = found.curves[name][own, n, : row.shape[1]]
            np.testing.assert_allclose(kept, row[0], rtol=1e-5, err_msg=name)


def test_an_interrupted_search_resumes_with_the_settings_that_have_no_record(made, tmp_path):
    sweep = write_sweep(tmp_path, CONTENT, "tune")
    records = read_records(made.records)
    first, second = new_measure(sweep).bundles(sweep.planned_runs())  # by hidden units
    add_records(sweep.records, [records[run.key] for run in first])
    assert make(sweep, tmp_path / "root") == [second]
    np.testing.assert_array_equal(search(sweep).scores["area"], search(made).scores["area"])
    before = sweep.records.read_bytes()
    assert make(sweep, tmp_path / "root") == [] and sweep.records.read_bytes() == before


def test_an_agent_that_stopped_with_broken_numbers_has_learned_nothing(tmp_path):
    sweep = write_sweep(tmp_path, CONTENT | {"grid": {f"{SOURCE}learning_rate": [1e30, 0.01]}})
    make(sweep, tmp_path / "root")
    scores = search(sweep).scores
    np.testing.assert_array_equal(scores["stopped"], [[1, 1], [0, 0]])
    np.testing.assert_array_equal(scores["learned"], [[0, 0], [1, 1]])


def test_the_largest_mean_area_comes_first_and_equal_ones_in_order():
    area = np.array([[0.8, 1.0], [0.1, 0.1], [0.8, 0.8], [0.9, 0.9]])
    found = rank(Search([], ["0-0", "0-1"], {}, {"area": area}, np.ones(2)))
    assert found.tolist() == [0, 3, 2, 1]


def test_the_page_ranks_settings_and_the_best_is_written_as_an_experiment(made):
    header, _, *lines = [line for line in page_of(made).splitlines() if line.startswith("|")]
    best = dict(zip(cells(header), cells(lines[0]), strict=True))
    areas = [float(cells(line)[cells(header).index("area")].split()[0]) for line in lines]
    assert len(lines) == 4 and areas == sorted(areas, reverse=True) and " of 2" in best["learned"]
    written = load(["--config_path", str(made.path.parent / "root/best.yaml")])
    own = {name: written.source.settings[name] for name in ("hidden", "learning_rate")}
    assert best["settings"] == f"hidden={own['hidden']} learning_rate={own['learning_rate']:g}"
    plain = load_file(CONTENT["experiment"], **CONTENT["settings"])
    assert written.env == plain.env and written.training == plain.training


def cells(line: str) -> list[str]:
    """The cells of a row of a Markdown table."""
    return [cell.strip() for cell in line.split("|")[1:-1]]
