"""The verb `inspect`: what it writes, prints and refuses."""

import json

import numpy as np
import pytest
from test_contexts import METHODS, untrained

from ad.cli import exit_code
from ad.errors import ConfigError, CorruptError
from ad.interpret.analyses import probes
from ad.interpret.analysis import Subject, estimate_text, interval_text, over_tasks
from ad.interpret.inspect import inspect_run
from ad.interpret.labeled import LabeledArray, intervals, load, save, stack
from ad.interpret.page import page_data
from ad.registry import ANALYSES
from ad.runtime.run import Run
from ad.verbs import inspect_model

PAIRED = {"patching", "path_patching", "attribution_patching"}  # analyses of pairs
RARE = {"scrubbing"}  # scores decisions that agree, which a few episodes may not have
NEEDS_A_CHANGE = "needs a model that reads rewards, earlier episodes or an asked return"
NEEDS_A_RETURN = "needs contexts from rollouts of a model that is asked for a return"
NEEDS_A_REWARD = "needs a model that reads rewards"
NEEDS_REWARDS = "needs a model that reads the rewards of earlier episodes"
NEEDS = (NEEDS_A_CHANGE, NEEDS_A_RETURN, NEEDS_A_REWARD, NEEDS_REWARDS)
UNREWARDED = ("behavior_cloning", "decision_transformer")  # whose tokens tell no rewards
NOT_ASKED = ("algorithm_distillation", "behavior_cloning", "in_context_q", "dpt")
WITHOUT = {  # the analyses that a method does not have
    **{(name, "behavior_cloning"): NEEDS_A_CHANGE for name in PAIRED},
    **{("scrubbing", name): NEEDS_REWARDS for name in UNREWARDED},
    **{("successes", name): NEEDS_A_REWARD for name in UNREWARDED},
    **{("return_scan", name): NEEDS_A_RETURN for name in NOT_ASKED},
}


@pytest.fixture
def few_decisions(monkeypatch):
    """Fit linear probes on few decisions, which takes little time."""
    monkeypatch.setattr(probes, "FITTED", 80)
    monkeypatch.setattr(probes, "PROBES", ("linear",))


def unknown(results: dict[str, LabeledArray]) -> set[str]:
    """Return the names of arrays without a number; an interval needs more tasks than a score."""
    known = {name for name, array in results.items() if np.isfinite(array.values).any()}
    return results.keys() - known - {*intervals(results).values()}


def test_the_verb_writes_the_arrays_of_every_analysis_and_prints_a_table(
    trained, capsys, few_decisions
):
    inspect_run(trained)
    said = capsys.readouterr().out
    left_out = {"return_scan"}
    assert f"left out: the analysis return_scan {NEEDS_A_RETURN}" in said
    for name in {*ANALYSES} - left_out:
        path = trained.folder / "inspect" / name
        assert f"{name}: {path}.npz" in said
        about = json.loads(path.with_suffix(".json").read_text())
        assert about["analysis"] == name and about["split_hash"] == trained.split.hash
        assert not unknown(load(path)) or name in RARE


@pytest.mark.parametrize("words", METHODS.values(), ids=METHODS)
def test_every_method_has_its_analyses(collected, words, few_decisions):
    small = ["--evaluation.episodes", "5", "--model.layers", "1", "--data.context_length", "8"]
    subject = Subject(*untrained(collected("inspect", *small, *words)))
    for name in ANALYSES:
        analysis = ANALYSES.load(name)()
        assert analysis.problem(subject) == WITHOUT.get((name, subject.run.config.method.name))
        if analysis.problem(subject) is None:
            results = analysis.run(subject)
            assert not unknown(results) or name in RARE, name
            axes = {own: tuple(array.axes) for own, array in results.items()}
            if name == "static":  # whose arrays depend on the encoder
                assert not analysis.arrays
            else:
                assert axes and axes.items() <= analysis.arrays.items()
            table = analysis.table(results)
            assert {len(row) for row in table.rows} == {len(table.header)}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            [
                *("--method.name", "decision_transformer"),
                *("--method.settings", "{across_episodes: true}"),
            ],
            "writes the returns of past episodes into its context",
        ),
        (
            ["--method.name", "dpt", "--evaluation.policy", "{context_update: episode}"],
            "does not read the present episode",
        ),
    ],
)
def test_contexts_that_a_policy_changes_are_not_cut_from_rollouts(collected, words, sentence):
    run, method, model = untrained(collected("inspect", *words))
    for name in ANALYSES:
        problem = ANALYSES.load(name).problem(Subject(run, method, model))
        if name == "static":
            assert problem is None
        else:
            assert sentence in problem or problem in NEEDS
    histories = Subject(run, method, model, source="histories")
    assert ANALYSES.load("attention").problem(histories) is None


def test_analyses_of_outputs_need_tasks_with_the_same_actions(collected, monkeypatch):
    subject = Subject(*untrained(collected("inspect")))
    monkeypatch.setattr(type(subject.run.world), "action_mask", lambda self, tasks: tasks > 99)
    problems = {name for name in ANALYSES if ANALYSES.load(name).problem(subject)}
    of_outputs = {"lens", "attribution", "context_scan", "return_scan", "scrubbing", "successes"}
    assert problems == of_outputs | PAIRED
    assert "same number of actions" in ANALYSES.load("lens").problem(subject)


def test_a_world_that_cannot_be_stepped_has_the_analyses_of_its_histories(collected, monkeypatch):
    run, method, model = untrained(collected("inspect"))
    monkeypatch.setattr(type(run.world), "can_be_stepped", False)
    attention, subject = ANALYSES.load("attention"), Subject(run, method, model)
    assert attention.problem(subject).endswith("in a world that cannot be stepped")
    assert attention.problem(Subject(run, method, model, source="histories")) is None
    assert ANALYSES.load("static").problem(subject) is None


def test_an_online_method_is_refused_before_its_model_is_loaded(smoke, tmp_path):
    run = Run(smoke(tmp_path, "--method.name", "rl2"))
    with pytest.raises(ConfigError, match="rl2 trains no transformer"):
        inspect_run(run)


def test_the_static_analysis_plays_no_rollout(trained, monkeypatch):
    monkeypatch.setattr(Subject, "contexts", None)
    inspect_run(trained, ["static"])
    about = json.loads((trained.folder / "inspect" / "static.json").read_text())
    assert "contexts" not in about and about["split_hash"] == trained.split.hash


def test_contexts_may_come_from_the_histories(trained):
    inspect_run(trained, ["attention"], source="histories")
    about = json.loads((trained.folder / "inspect" / "attention.json").read_text())
    assert about["contexts"] == "histories"
    assert len(about["tasks"]) == len(trained.split.train_tasks)


@pytest.mark.parametrize("words", [METHODS["three tokens"], METHODS["decision transformer"]])
def test_an_analysis_of_histories_has_no_in_context_episodes(collected, words):
    small = ["--model.layers", "1", "--data.context_length", "8"]
    subject = Subject(*untrained(collected("inspect", *small, *words)), source="histories")
    found = set()
    for name in ANALYSES:
        analysis = ANALYSES.load(name)()
        if analysis.problem(subject) is None:
            found.add(name)
            results = analysis.run(subject)
            assert not any("episode" in array.axes for array in results.values())
            assert "nan" not in analysis.table(results).markdown()
    is_asked = "decision_transformer" in words  # in rollouts alone
    of_rewards = set() if is_asked else {"scrubbing", "successes", *PAIRED}
    assert found == {"attention", "lens", "attribution", "static"} | of_rewards


def test_the_same_run_gives_the_same_bytes(trained):
    files, names = [], ["attention", "attribution_patching", "scrubbing"]
    for _ in range(2):
        inspect_run(Run(trained.config), names, fresh=True)
        folder = trained.folder / "inspect"
        files.append({path.name: path.read_bytes() for path in folder.iterdir()})
    written = {f"{name}.{kind}" for name in names for kind in ("npz", "json")}
    assert files[0] == files[1] and files[0].keys() == written


def test_what_is_done_is_kept_unless_it_is_of_something_else_or_fresh(trained, capsys, monkeypatch):
    inspect_run(trained, ["attention", "static"])
    first = capsys.readouterr().out
    calls = []
    for name in ("attention", "static"):
        analysis = ANALYSES.load(name)
        run = analysis.run

        def counted(self, subject, run=run, name=name):
            calls.append(name)
            return run(self, subject)

        monkeypatch.setattr(analysis, "run", counted)
    inspect_run(trained, ["attention", "static"])
    assert not calls
    assert capsys.readouterr().out.replace(" (already done)", "") == first
    inspect_run(trained, ["attention"], source="histories")
    inspect_run(trained, ["static"], source="histories")  # which reads no contexts
    inspect_run(trained, ["static"], fresh=True)
    (trained.folder / "inspect" / "static.json").write_text("{")
    inspect_run(trained, ["static"])
    assert calls == ["attention", "static", "static"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", None, "half"])
def test_damaged_arrays_are_made_again_and_are_one_sentence_elsewhere(trained, content):
    inspect_run(trained, ["static"])
    path = trained.folder / "inspect" / "static"
    npz = path.with_suffix(".npz")
    whole = npz.read_bytes()
    if content is None:
        npz.unlink()
    else:
        npz.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(CorruptError, match=r"static\.npz cannot be read: --fresh true makes it"):
        load(path)
    left_out = page_data(trained, {})["left_out"]
    assert "static cannot be read: --fresh true makes it again" in left_out
    inspect_run(trained, ["static"])
    assert npz.read_bytes() == whole


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--analyses", "lens", "--components", "0.0"], "--components is for the ablation"),
        (["--components", "0.0,mlp 1,0.0"], "--components names 0.0 twice"),
        (["--analyses", "attentoin"], "did you mean attention?"),
        (["--analyses", "attention"], "holds no finished training"),
        (["--analyses", "attention, lens"], "holds no finished training"),
        (["--analyses", "attention", "--fresh", "1"], "must be true or false"),
        (["--contexts", "dreams"], "--contexts must be rollout or histories, not 'dreams'"),
        (["--checkpoints", "late"], "--checkpoints must be whole numbers with commas between"),
        (["--checkpoints", "all"], "--checkpoints needs two checkpoints, and"),
        (["--checkpoints", "5,9"], "has no checkpoint of train step 5, only of: none"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path, capsys, words, sentence):
    assert exit_code(inspect_model, ["--root", str(tmp_path), *words]) == 2
    assert sentence in capsys.readouterr().err


def test_a_part_that_the_model_lacks_is_refused_before_anything_runs(trained):
    with pytest.raises(ConfigError, match=r"no component 9\.0"):
        inspect_run(trained, ["attention", "ablation"], ["9.0"])
    assert not (trained.folder / "inspect").exists()


def test_labels_must_fit_the_array_and_choose_from_it(tmp_path):
    values = np.arange(6.0).reshape(2, 3)
    array = LabeledArray(values, {"head": ["0.0", "0.1"], "episode": [1, 2, 3]}, "numbers")
    assert array.at(head="0.1").tolist() == [3, 4, 5] and array.at(episode=2, head="0.0") == 1
    with pytest.raises(KeyError):
        array.at(layer=1)
    with pytest.raises(ValueError, match="labels for"):
        LabeledArray(values, {"head": ["0.0"], "episode": [1, 2, 3]}, "numbers")
    save(tmp_path / "x", {"a": array}, {"name": "x"})
    ((name, read),) = load(tmp_path / "x").items()
    assert (name, read.axes, read.about) == ("a", array.axes, array.about)
    np.testing.assert_array_equal(read.values, values)


def test_results_are_stacked_with_nan_for_coordinates_that_some_lack():
    def results(number, labels, values):
        array = LabeledArray(np.array(values), {"x": labels}, "numbers")
        return {"number": LabeledArray(np.array(number), {}, "a number"), "array": array}

    stacked = stack({0: results(1.0, ["p"], [5.0]), 4: results(2.0, ["q", "p"], [7.0, 6.0])}, "n")
    assert stacked["number"].axes == {"n": [0, 4]} and stacked["number"].values.tolist() == [1, 2]
    assert stacked["array"].axes == {"n": [0, 4], "x": ["p", "q"]}
    np.testing.assert_array_equal(stacked["array"].values, [[5, np.nan], [6, 7]])


def test_a_mean_over_a_single_task_has_no_interval():
    values = np.array([[1.0, 3.0, np.nan], [2.0, np.nan, np.nan], [6.0, np.nan, np.nan]])
    mean, interval = over_tasks(values)
    np.testing.assert_array_equal(mean, [3, 3, np.nan])
    assert interval[0, 0] < 3 < interval[1, 0] and np.isnan(interval[:, 1:]).all()
    assert np.isnan(over_tasks(values[:1])[1]).all()
    assert (
        interval_text(1.0, 2.0, ".1f") == "[1.0, 2.0]" and interval_text(*interval[:, 1], "") == "–"
    )
    assert estimate_text(1.5, 1.0, 2.0, ".1f") == "1.5 [1.0, 2.0]"
    assert estimate_text(1.5, np.nan, np.nan, ".1f") == "1.5"
    assert estimate_text(np.nan, np.nan, np.nan, ".1f") == "–"


def test_an_interval_belongs_to_the_array_that_it_names_or_to_the_one_before_it():
    array = LabeledArray(np.zeros(2), {"x": ["p", "q"]}, "numbers")
    names = ["loss", "effect", "interval", "curve", "effect_by_task", "curve_interval"]
    assert intervals(dict.fromkeys(names, array)) == {
        "effect": "interval",
        "curve": "curve_interval",
    }
