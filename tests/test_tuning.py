"""The search for settings of a source: what it tries, measures, ranks, saves and refuses."""

import csv
import dataclasses

import numpy as np
import pytest

from ad.cli import VERBS, exit_code
from ad.collection.collect import collect
from ad.config.parser import load
from ad.data.curves import LearningCurves
from ad.data.histories import HistoryStore
from ad.data.schema import TransitionChunk
from ad.data.store import load_history
from ad.runtime.run import Run
from ad.runtime.snapshots import load_state, read_metadata, save_state
from ad.sources.a2c import Settings
from ad.sweeps.tuning.report import rank, tune_and_report
from ad.sweeps.tuning.search import Tuning, candidates, group_settings, tune, tuning_folder

GRID = ["--source.algorithm", "a2c", "--tune.num_tasks", "2"]
GRID += ["--tune.grid.learning_rate", "[1e-3, 0.01]", "--tune.grid.hidden", "[8, 16]"]


@pytest.fixture
def search(smoke, tmp_path):
    """search(*words): a search over four settings in the 3 x 3 room."""
    return lambda *words: smoke(tmp_path, "--name", "search", *GRID, *words)


def test_the_grid_is_every_combination_over_the_configured_settings(search):
    found = candidates(search("--source.settings.discount", "0.5"))
    values = [(own.learning_rate, own.hidden, own.discount) for own in found]
    assert values == [(1e-3, 8, 0.5), (1e-3, 16, 0.5), (0.01, 8, 0.5), (0.01, 16, 0.5)]


def test_a_value_said_twice_is_tried_once(search):
    assert len(candidates(search("--tune.grid.hidden", "[8, 8]"))) == 2


def test_random_settings_lie_between_the_values_evenly_in_their_logarithm(search):
    found = candidates(search("--tune.samples", "400", "--tune.grid.learning_rate", "[1e-4, 1.0]"))
    rates = np.array([own.learning_rate for own in found])
    assert {type(own.hidden) for own in found} == {int}
    assert {own.hidden for own in found} == set(range(8, 17))
    assert (rates >= 1e-4).all() and (rates <= 1).all()
    assert abs((rates < 1e-2).mean() - 0.5) < 0.1


def test_another_seed_draws_other_random_settings(search):
    one, same, other = (
        candidates(search("--tune.samples", "5", "--tune.tune_seed", seed)) for seed in "001"
    )
    assert one == same and not set(one) & set(other)


def test_a_group_agrees_in_what_is_shared_and_is_not_too_large():
    settings = [Settings(hidden=h, discount=d / 100) for d in range(40) for h in (8, 16)]
    parts = group_settings(settings, ("hidden", "rollout_length"), 32)
    assert sorted(number for part in parts for number in part) == list(range(80))
    assert {len({settings[number].hidden for number in part}) for part in parts} == {1}
    assert max(map(len, parts)) == 32


def test_a_tuned_curve_is_that_of_the_history_collected_with_its_settings(search):
    tuning = tune(search())
    own = tuning.settings[2]
    words = ["--source.settings.learning_rate", "0.01", "--source.settings.hidden", "8"]
    run = Run.open(search("--name", "collected", *words))
    assert Settings(**run.config.source.settings) == own
    collect(run)
    for n, task in enumerate(tuning.tasks):
        arrays = load_history(HistoryStore(run.config).folder(task)).arrays
        curves = LearningCurves(run.world, 1, 4, 1000, 4)
        curves.add(TransitionChunk({name: array.T[:, None] for name, array in arrays.items()}))
        for name, row in curves.curves().items():
            found = tuning.curves[name][2, n, : row.shape[1]]
            np.testing.assert_allclose(found, row[0], rtol=1e-12, err_msg=name)


def test_a_search_is_on_train_tasks(search):
    config = search("--tune.num_tasks", "50")
    train = Run.open(config).split.train_tasks
    np.testing.assert_array_equal(tune(config).tasks, train)


def test_every_source_can_be_tuned(search):
    words = ["--source.algorithm", "noise_distillation", "--tune.grid", "{}"]
    tuning = tune(search(*words, "--tune.grid.noise_start", "[1.0, 0.2]"))
    assert (tuning.scores["area"][1] > tuning.scores["area"][0]).all()


def test_an_interrupted_search_resumes_after_its_last_group(search):
    config = search()
    whole, folder = tune(config), tuning_folder(config)
    found = read_metadata(folder)
    about = {name: found[name] for name in ("tuning", "versions")}
    first = {"0": load_state(folder)["0"]}
    first["0"]["statistics"]["entropy"] += 1  # to be known again: it is not computed a second time
    save_state(folder, 1, first, about)
    again = tune(config)
    for name, values in whole.scores.items():
        different = (values != again.scores[name]) & np.isfinite(values)
        expected = [[True] * 2, [False] * 2] * 2 if name == "entropy" else [[False] * 2] * 4
        np.testing.assert_array_equal(different, expected, err_msg=name)
    fresh = tune(config, fresh=True)
    np.testing.assert_array_equal(fresh.scores["entropy"], whole.scores["entropy"])


def test_another_search_does_not_take_up_the_saved_one(search):
    before = tune(search()).scores["area"]
    after = tune(search("--source.source_seed", "1")).scores["area"]
    assert (before != after).all()


def ranking(**scores):
    """The orders of made-up settings, one value of each score a setting."""
    scores = {name: np.array(values)[:, None] for name, values in scores.items()}
    settings = [Settings(hidden=h) for h in range(1, 1 + len(scores["area"]))]
    tuning = Tuning(settings, np.array([[0, 0]]), {}, scores, np.ones(1))
    config = load(["--tune.rise_windows", "0.5"])
    return rank(config, tuning)


def test_the_largest_area_comes_first():
    found = ranking(area=[0.2, 0.9, 0.5], learned=[1, 1, 1], rise_windows=[1.0, 1.0, 1.0])
    assert found.orders["area"].tolist() == [1, 2, 0]


def test_the_pace_nearest_to_the_wanted_one_comes_first_twice_being_as_far_as_half():
    found = ranking(
        area=[0.9, 0.1, 0.8, 0.9], learned=[1, 1, 1, 1], rise_windows=[0.2, 0.5, 1.0, 0.25]
    )
    assert found.orders["pace"].tolist() == [1, 3, 2, 0]  # of equals, the larger area


def test_a_setting_that_fails_on_a_task_comes_last_by_pace():
    found = ranking(area=[0.1, 0.2], learned=[0, 1], rise_windows=[np.nan, 50.0])
    assert found.orders["pace"].tolist() == [1, 0]


def test_a_setting_that_does_not_learn_has_no_pace(search):
    words = ["--env.kwargs.size", "5", "--tune.grid.learning_rate", "[1e-9, 0.01]"]
    tuning = tune(search(*words, "--split.num_train_tasks", "20"))
    assert np.isnan(tuning.scores["rise_windows"][0]).all()
    assert (tuning.scores["learned"][0] == 0).all()


def test_an_agent_that_stopped_with_broken_numbers_has_learned_nothing_and_stops_no_other(search):
    words = ["--tune.grid.learning_rate", "[1e30, 0.01]", "--tune.grid.hidden", "[8]"]
    scores = tune(search(*words)).scores
    np.testing.assert_array_equal(scores["stopped"], [[1, 1], [0, 0]])
    np.testing.assert_array_equal(scores["learned"], [[0, 0], [1, 1]])


@pytest.mark.parametrize("by", ["area", "pace"])
def test_the_verb_writes_its_files_and_the_best_setting_as_an_experiment(search, by, capsys):
    config = search("--tune.rank_by", by)
    tune_and_report(config)
    folder = tuning_folder(config)
    assert (folder / "tuning.png").read_bytes().startswith(b"\x89PNG")
    with open(folder / "tuning.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 8
    header, _, best, *rest = (folder / "table.md").read_text().splitlines()
    columns = dict(zip(cells(header), cells(best), strict=True))
    assert len(rest) == 3 and columns[f"by {by}"] == "1"
    best_config = load(["--config_path", str(folder / "best.yaml")])
    assert best_config.source.settings["learning_rate"] == float(columns["learning_rate"])
    assert best_config.source.settings["hidden"] == int(columns["hidden"])
    assert dataclasses.replace(best_config, source=config.source) == config
    assert "4 settings on 2 tasks" in capsys.readouterr().out


def test_a_search_that_is_done_is_only_drawn_again(search, capsys):
    tune_and_report(search())
    first = capsys.readouterr().out
    state = tuning_folder(search()) / "state.json"
    before = state.stat().st_mtime_ns
    tune_and_report(search())
    assert capsys.readouterr().out == first and state.stat().st_mtime_ns == before


def test_a_search_changes_nothing_of_a_run(search, smoke, tmp_path):
    run = Run.open(smoke(tmp_path, "--name", "search", *GRID[:2]))
    before = {path.name for path in run.folder.iterdir()}
    tune_and_report(search())
    assert {path.name for path in run.folder.iterdir()} == {*before, "tuning"}
    Run.open(search())  # other settings would be refused


REFUSED = [
    (
        "--tune.grid.learning_rat [1]",
        "tune.grid.learning_rat (command line) is not a setting; did ",
    ),
    ("--tune.grid.hidden 8", "tune.grid.hidden (command line) must be a list of values, not 8"),
    ("--tune.grid.hidden []", "tune.grid.hidden (command line) must be a list of values, not []"),
    ("--tune.grid.hidden [8,2.5]", "tune.grid.hidden (command line) must be a whole number, not"),
    ("--tune.grid.discount [0.9,1.5]", "tune.grid.discount (command line) must be at most 1, not"),
    ("--tune.samples 5000", "tune.grid (command line) makes 5000 settings to try: at most 4096"),
    ("--tune.grid {}", "tune.grid names no setting to try: --tune.grid.<setting> '[value, ...]'"),
    ("--data.history_stride 250", "the 1000 transitions of an actor may hold 200 episodes, fewer"),
]


@pytest.mark.parametrize(("words", "sentence"), REFUSED)
def test_bad_input_is_one_sentence_and_exit_code_2(words, sentence, smoke, tmp_path, capsys):
    argv = ["--config_path", "configs/smoke.yaml", "--root", str(tmp_path), "--name", "bad"]
    argv += [*GRID, "--data.context_length", "1", *words.split(" ", 1)]
    assert exit_code(VERBS["tune"], argv) == 2
    error = capsys.readouterr().err
    assert error.startswith(sentence) and error.count("\n") == 1
    assert not (tmp_path / "logs" / "bad" / "tuning").exists()


def cells(line: str) -> list[str]:
    """The cells of a row of a Markdown table."""
    return [cell.strip() for cell in line.split("|")[1:-1]]
