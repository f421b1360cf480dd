"""The format of sweeps: which cells and runs a file means, and which files are refused."""

import pytest
from processes import ROOT
from sweeps import write_sweep

from ad.config.fields import merged
from ad.config.schema import diff
from ad.errors import ConfigError
from ad.sweeps.load import load_sweep
from ad.sweeps.run import new_measure, take_shard

SMOKE = str(ROOT / "configs/smoke.yaml")
NOISE = {"source.algorithm": "noise_distillation"}
STUDY = {
    "experiment": SMOKE,
    "settings": {**NOISE, "source.source_seed": 100, "evaluation.temperature": 1.0},
    "seeds": [0, 1],
    "pooled": True,
    "groups": {
        "encoder": {"grid": {"model.encoder": ["table", "factored"]}, "baseline": "factored"},
        "temperature": {"grid": {"evaluation.temperature": [1.0, 2.0]}, "baseline": "1"},
    },
}
BOARD = {
    "groups": {
        "room": {
            "experiment": SMOKE,
            "variants": {"informed": {"source.algorithm": "posterior_sampling"}},
        },
        "hall": {"experiment": SMOKE, "settings": {"env.kwargs.size": 4}},
        "cave": {"experiment": SMOKE, "settings": {"env.kwargs.size": 5}},
    },
    "rows": {
        "distillation": {},
        "informed": {"variant": "informed", "settings": {"training.steps": 21}},
        "clone": {"settings": {"method.name": "behavior_cloning", "model.reward": "none"}},
        "tuned": {
            "tried": [{}, {"training.steps": 21}, {"evaluation.temperature": 2}],
            "tuned": {"training.steps": 21},
        },
    },
    "boards": {
        "core": {"groups": ["room"], "rows": ["distillation", "clone"], "seeds": [0, 1, 2]},
        "tuning": {"groups": ["hall", "cave"], "rows": ["tuned"], "seeds": [7], "tuning": True},
    },
}
TABLES = {
    "splits": [0, 1],
    "seeds": [0, 1, 2],
    "groups": {
        "first": {
            "rows": {"plain": {"experiment": SMOKE}, "noisy": {"experiment": SMOKE}},
            "baseline": "plain",
        }
    },
}
TABLES["groups"]["first"]["rows"]["noisy"] = {"experiment": SMOKE, "settings": NOISE}


def changed(content: dict, path: str, value) -> dict:
    """Return a copy of nested `content` with another value at the path "a/b"."""
    first, _, rest = path.partition("/")
    own = changed(content.get(first, {}), rest, value) if rest else value
    return {**content, first: own}


def test_a_cell_is_a_row_of_a_group_and_equal_cells_share_their_runs(tmp_path):
    sweep = write_sweep(tmp_path, STUDY)
    assert [(cell.group, cell.row) for cell in sweep.cells] == [
        *(("encoder", "table"), ("encoder", "factored")),
        *(("temperature", "1"), ("temperature", "2")),
    ]
    labels = ["encoder / table", "encoder / factored", "temperature / 2"]
    assert [run.label for run in sweep.planned_runs()] == 2 * labels  # a first answer soon
    seeds = {
        (r.config.source.source_seed, r.config.training.train_seed) for r in sweep.cells[0].runs
    }
    assert seeds == {(100, 0), (100, 1)}  # as the settings say
    base = sweep.cells[1].runs[0].config
    assert diff(base, sweep.cells[0].runs[0].config) == {"model.encoder": "table"}


def test_runs_that_differ_in_evaluation_only_share_a_training(tmp_path):
    sweep = write_sweep(tmp_path, STUDY)
    bundles = new_measure(sweep).bundles(sweep.planned_runs())
    assert [[run.row for run in bundle] for bundle in bundles] == 2 * [["table"], ["factored", "2"]]


@pytest.mark.parametrize("number", [2, 9])
def test_shards_share_out_all_bundles(tmp_path, number):
    sweep = write_sweep(tmp_path, STUDY)
    runs, measure = sweep.planned_runs(), new_measure(sweep)
    shards = [take_shard(measure, runs, part, number) for part in range(1, number + 1)]
    assert sorted(run.key for part in shards for run in part) == sorted(run.key for run in runs)
    folders = [{run.config.name for run in part} for part in shards]
    assert sum(map(len, folders)) == len(set().union(*folders))


def test_each_cell_has_a_run_for_each_split_and_seed(tmp_path):
    plain, noisy = write_sweep(tmp_path, TABLES).cells
    seeds = [(r.config.split.split_seed, r.config.training.train_seed) for r in plain.runs]
    assert sorted(seeds) == [(split, seed) for split in (0, 1) for seed in (0, 1, 2)]
    assert all(r.config.source.source_seed == r.config.training.train_seed for r in noisy.runs)
    assert len({r.config.name for r in [*plain.runs, *noisy.runs]}) == 12


def test_a_board_has_some_of_the_groups_and_rows_and_a_page_of_its_own(tmp_path):
    core = write_sweep(tmp_path, {**BOARD, "page": "page.md"})
    assert (core.name, core.page.name, len(core.planned_runs())) == ("plan", "page.md", 6)
    tuning = load_sweep(core.path, "tuning")
    assert (tuning.name, tuning.page.name) == ("plan_tuning", "plan_tuning.md")
    assert tuning.records == core.records == tmp_path / "plan.jsonl"


def test_a_board_that_tunes_compares_what_is_tried_and_others_have_the_chosen(tmp_path):
    rows = ["tuned: base", "tuned: training.steps=21", "tuned: evaluation.temperature=2"]
    tuning = write_sweep(tmp_path, BOARD, board="tuning")
    assert list(tuning.rows) == tuning.tried["tuned"] == rows
    assert [run.config.training.steps for run in tuning.cells[1].runs] == [21]
    assert len(new_measure(tuning).bundles(tuning.planned_runs())) == 4  # temperatures share
    assert tuning.select(rows=["tuned"]) == tuning.planned_runs()
    board = changed(BOARD, "boards/core/rows", ["tuned"])
    (cell,) = write_sweep(tmp_path, board).cells
    assert {run.config.training.steps for run in cell.runs} == {21}


def test_rows_and_groups_have_the_settings_of_others_that_they_name(tmp_path):
    longer = {"settings_of": "tuned", "settings": {"evaluation.temperature": 3}}
    small = {"settings_of": "hall", "settings": {"env.episode_length": 5}}
    core = {"groups": ["small"], "rows": ["longer"], "seeds": [0]}
    board = changed(BOARD, "rows/longer", longer)
    board = changed(changed(board, "groups/small", small), "boards/core", core)
    (run,) = write_sweep(tmp_path, board).planned_runs()
    config = run.config
    assert (config.training.steps, config.evaluation.temperature) == (21, 3)
    assert (config.env.kwargs["size"], config.env.episode_length) == (4, 5)


@pytest.mark.parametrize(("of_group", "expected"), [(None, [0, 1, 2]), (1, [0])])
def test_a_row_or_a_group_may_have_fewer_runs_than_the_board(tmp_path, of_group, expected):
    content = changed(changed(BOARD, "rows/clone/runs", 2), "groups/room/runs", of_group)
    sweep = write_sweep(tmp_path, content, board="core")
    seeds = {
        cell.row: [run.config.training.train_seed for run in cell.runs] for cell in sweep.cells
    }
    assert seeds == {"distillation": expected, "clone": [0, 1]}


def test_settings_of_a_row_replace_those_at_or_below_them():
    common = {"source.settings.window": 5, "source.settings.noise": 0.1, "training.steps": 3}
    own = merged(common, {"source.settings": {"noise": 0.2}, "training.steps": 4})
    assert own == {"source.settings": {"noise": 0.2}, "training.steps": 4}
    own = merged({"source.settings": {"noise": 0.2}}, {"source.settings.window": 5})
    assert list(own) == ["source.settings", "source.settings.window"]  # set in this order


def test_runs_are_chosen_by_titles_and_seeds(tmp_path):
    sweep = write_sweep(tmp_path, STUDY)
    assert {run.label for run in sweep.select(["encoder"], ["table"])} == {"encoder / table"}
    assert {run.config.training.train_seed for run in sweep.select(seeds=[1])} == {1}
    with pytest.raises(ConfigError, match="no group 'encodr'; did you mean encoder"):
        sweep.select(["encodr"])
    with pytest.raises(ConfigError, match="no run of these groups, rows and seeds"):
        sweep.select(seeds=[77])


def test_a_grid_is_every_combination(tmp_path):
    grid = {"source.settings.hidden": [8, 16], "source.settings.learning_rate": [1e-4, 1.0]}
    content = {"experiment": SMOKE, "settings": {"source.algorithm": "a2c"}, "grid": grid}
    sweep = write_sweep(tmp_path, content | {"seeds": [0]})
    values = [(s["hidden"], s["learning_rate"]) for s in settings_of(sweep)]
    assert values == [(8, 1e-4), (8, 1.0), (16, 1e-4), (16, 1.0)]
    assert sweep.cells[0].row == "hidden=8 learning_rate=0.0001"


def settings_of(sweep) -> list[dict]:
    return [run.config.source.settings for run in sweep.planned_runs()]


WRONG = [
    (STUDY, "experiment", "nowhere.yaml", "nowhere.yaml"),
    (STUDY, "seeds", [0, 0], "seeds"),
    (STUDY, "groups/encoder/grid", {"model.encoder": ["offset"]}, "model.encoder"),
    (STUDY, "groups/encoder/baseline", "facored", "no row"),
    (STUDY, "groups/encoder/settings", {"training.train_seed": 1}, "training.train_seed"),
    (TABLES, "groups/first/rows/noisy", {"experiment": SMOKE}, "the same run"),
    (BOARD, "boards/core/rows", ["clones"], "no row"),
    (BOARD, "rows/clone/tuned", {"training.steps": 3}, "tuned"),
    (BOARD, "rows/distillation/settings_of", "tund", "no row 'tund'; did you mean tuned"),
    (BOARD, "groups/room/settings_of", "hal", "no group 'hal'"),
    (BOARD, "groups/room/world", "change 3", "evaluated in 'change 3'"),
    (BOARD, "rows/distillation/variant", "informd", "no group has a variant 'informd'"),
    (TABLES, "pooled", True, "splits must be empty where runs are pooled"),
    (
        BOARD,
        "boards",
        {"tuning": {"groups": ["hall"], "tuning": True}, "core": {}},
        "tuned on hall",
    ),
    (BOARD, "boards", {"tuning": {"tuning": True}, "core": {"groups": ["hall"]}}, "tuned on hall"),
]


@pytest.mark.parametrize(("content", "path", "value", "sentence"), WRONG)
def test_a_wrong_file_is_refused_in_words(tmp_path, content, path, value, sentence):
    content = changed(content, path, value)
    with pytest.raises(ConfigError) as caught:
        write_sweep(tmp_path, content)
    assert sentence in str(caught.value).replace('"', "'")
