"""The verb `inspect`: what it writes, prints and refuses."""

import json
from dataclasses import replace

import numpy as np
import pytest
from test_contexts import METHODS, untrained

from ad.cli import VERBS, exit_code
from ad.errors import ConfigError, CorruptError
from ad.interpret import contexts, inspect
from ad.interpret.analyses import probes
from ad.interpret.analyses.bank import BANK, BY_HAND, Bank, probabilities, save_situation
from ad.interpret.analyses.lens import Lens
from ad.interpret.analysis import Choice, Subject, over_groups
from ad.interpret.changes import make_queries, shortened
from ad.interpret.inspect import ALL, inspect_run
from ad.interpret.labeled import LabeledArray, intervals, load, save, stack
from ad.registry import ANALYSES
from ad.runtime.run import Run

PAIRED = {"patching", "path_patching", "attribution_patching"}  # analyses of pairs
RARE = {"scrubbing"}  # scores decisions that agree, which a few episodes may not have
WITHOUT_REWARDS = {"scrubbing", "successes"}  # left out if the tokens encode no rewards
STUDIES = {"claims", "behavior"}  # analyses of some worlds and models alone
LEFT_OUT = {  # by method
    "algorithm_distillation": {"return_scan"},
    "behavior_cloning": {"return_scan", *WITHOUT_REWARDS},
    "context_value": {"return_scan", "probes", *WITHOUT_REWARDS},
    "decision_transformer": WITHOUT_REWARDS,
    "dpt": {"return_scan"},
    "in_context_q": {"return_scan"},
}


@pytest.fixture
def few_decisions(monkeypatch):
    """Fit linear probes on few decisions, which takes little time."""
    monkeypatch.setattr(probes, "FITTED", 80)
    monkeypatch.setattr(probes, "PROBES", ("linear",))


def possible(subject: Subject) -> set[str]:
    """The analyses that a subject can have."""
    return {*ANALYSES} - {*inspect._left_out(subject)}


def unknown(results: dict[str, LabeledArray]) -> set[str]:
    """Return the names of arrays without a number; an interval needs more tasks than a score."""
    known = {name for name, array in results.items() if np.isfinite(array.values).any()}
    return results.keys() - known - {*intervals(results).values()}


def test_all_analyses_are_written_and_printed(trained, capsys, few_decisions):
    inspect_run(trained, [ALL])
    said = capsys.readouterr().out
    assert "left out: the analysis return_scan" in said
    for name in {*ANALYSES} - STUDIES - {"return_scan"}:
        path = trained.folder / "inspect" / name
        assert f"{name}: {path}.npz" in said
        about = json.loads(path.with_suffix(".json").read_text())
        assert about["analysis"] == name and about["split_hash"] == trained.split.hash
        assert not unknown(load(path)) or name in RARE


TINY = ["--evaluation.episodes", "3", "--model.layers", "1", "--data.context_length", "8"]
SMALL = ["--evaluation.episodes", "5", "--model.layers", "1", "--data.context_length", "8"]


@pytest.mark.parametrize("words", METHODS.values(), ids=METHODS)
def test_every_method_has_its_analyses(collected, words):
    subject = Subject(*untrained(collected("inspect", *SMALL, *words)))
    assert possible(subject) == {*ANALYSES} - STUDIES - LEFT_OUT[subject.run.config.method.name]


@pytest.fixture
def few_rollouts(monkeypatch):
    """Roll out little where a single task is played."""
    monkeypatch.setattr(contexts, "ROLLOUTS", 3)


SINGLE = ["--split.num_held_out", "1", "--split.held_out", "null", "--data.context_length", "1"]
SUITE = METHODS | {
    "expert distillation": ["--method.name", "expert_distillation"],
    "in-context planning": ["--method.name", "in_context_planning"],
    "asked on a single task": [
        *(*METHODS["decision transformer"], "--model.tokenizer", "conditioned"),
        *(*SINGLE, "--model.position", "env_time", "--model.norm", "none"),
    ],
    "asked across episodes": [
        *(*METHODS["decision transformer"], "--method.settings", "{across_episodes: true}"),
    ],
    "algorithm distillation on a single task": ["--split.num_held_out", "1"],
    "algorithm distillation of a single task": ["--split.num_train_tasks", "1"],
}


@pytest.mark.parametrize("words", SUITE.values(), ids=SUITE)
def test_analyses_of_every_method_return_the_arrays_that_they_declare(
    collected, few_decisions, few_rollouts, words
):
    subject = Subject(*untrained(collected("inspect", *TINY, *words)))
    for name in possible(subject):
        analysis = ANALYSES.load(name)()
        results = analysis.run(subject)
        known = [array for array in results.values() if np.isfinite(array.values).any()]
        assert known or name in RARE | {"successes"}, name  # of few rewards
        scores = results.keys() - {*intervals(results).values()}
        axes = {own: tuple(results[own].axes) for own in scores}
        if name in ("static", "weights", "circuits"):  # whose arrays depend on the encoder
            assert not analysis.arrays
        else:
            assert axes and axes.items() <= analysis.arrays.items()
        table = analysis.table(results)
        assert {len(row) for row in table.rows} <= {len(table.header)}


def test_decisions_of_contexts_of_any_length_are_saved_together(collected):
    subject = Subject(*untrained(collected("inspect", *TINY)))
    queries, alone = make_queries(subject.contexts, 1), []
    for length in (3, 5, 2):
        cut = shortened(queries, length)
        decided = np.arange(length + 1) == cut.last[:, None]
        contexts = replace(cut.contexts, decided=decided)
        alone.append(probabilities(subject, contexts))
        save_situation(subject, contexts, BY_HAND)
    (kept,) = Bank.load(subject.run.folder / "inspect" / BANK, subject.model).kept
    np.testing.assert_allclose(kept.probability, np.concatenate(alone), atol=1e-6)


@pytest.mark.parametrize("segments", [1, 2])
@pytest.mark.parametrize("memory", ["gru", "min_gru", "xl"])
def test_the_analyses_that_read_no_attention_are_of_every_memory(
    collected, few_decisions, memory, segments
):
    if memory == "xl" and segments == 1:
        return  # which it is not
    words = [*SMALL, "--model.memory", memory, "--training.segments", str(segments)]
    subject = Subject(*untrained(collected("inspect", *words)))
    results = {name: ANALYSES.load(name)().run(subject) for name in possible(subject)}
    assert results.keys() == {"lens", "context_scan", "probes"}
    mixer = "attention 0" if memory == "xl" else f"{memory} 0"
    assert results["lens"]["agreement"].axes["stage"] == ["embedding", mixer, "mlp 0"]
    assert results["lens"]["agreement"].values[-1] == 1
    assert np.isfinite(results["probes"]["control"].values).any()
    reason = "training.segments above 1" if segments > 1 else "which has no attention"
    assert reason in inspect._left_out(subject)["attention"]
    assert (subject.contexts.length > 8) == (segments > 1)  # the length of a window
    if segments > 1:
        with pytest.raises(ConfigError, match="leave out --contexts histories"):
            Lens.check(replace(subject, choice=Choice(source="histories")))


def test_an_analysis_of_histories_has_no_in_context_episodes(collected):
    words = [*SMALL, *METHODS["decision transformer"]]
    subject = Subject(*untrained(collected("inspect", *words)), Choice(source="histories"))
    assert possible(subject) >= {"attention", "lens", "attribution", "static", *PAIRED}
    for name in possible(subject):
        analysis = ANALYSES.load(name)()
        results = analysis.run(subject)
        assert not any("episode" in array.axes for array in results.values())
        assert "nan" not in analysis.table(results).markdown()


def test_the_same_run_gives_the_same_bytes(trained):
    files, names = [], ["attention", "attribution_patching"]
    for _ in range(2):
        inspect_run(Run(trained.config), names, fresh=True)
        folder = trained.folder / "inspect"
        files.append({path.name: path.read_bytes() for path in folder.iterdir()})
    written = {f"{name}.{kind}" for name in names for kind in ("npz", "json")}
    assert files[0] == files[1] and files[0].keys() == written


def test_what_is_done_is_kept_unless_it_is_of_other_contexts_or_fresh(trained, capsys):
    done = []
    histories = {"choice": Choice(source="histories")}
    for options in ({}, {}, histories, histories | {"fresh": True}):
        inspect_run(trained, ["attention"], **options)
        done.append("(already done)" in capsys.readouterr().out)
    assert done == [False, True, False, False]
    about = json.loads((trained.folder / "inspect" / "attention.json").read_text())
    assert about["contexts"] == "histories"
    assert len(about["tasks"]) == len(trained.split.train_tasks)


def test_a_direction_has_a_folder_of_its_own_and_another_model_is_not_asked(trained):
    inspect_run(trained, ["attribution"])
    inspect_run(trained, ["attribution"], Choice(direction="2 - 0"))
    folder = trained.folder / "inspect"
    about = json.loads((folder / "2_-_0" / "attribution.json").read_text())
    assert about["direction"] == "2 - 0"
    chosen, other = (load(at / "attribution")["preferred"] for at in (folder / "2_-_0", folder))
    first, _, third, *_ = trained.world.action_names
    pairs = load(folder / "attribution")["pairs"].at(pair=f"{first} - {third}")
    assert (chosen.values * pairs <= 1e-6).mean() > 0.5 and (chosen.values != other.values).any()
    for choice, reason in {
        Choice(asked=(0.5,)): "--asked is for models",
        Choice(direction="2 - 9"): "no action '9'",
        Choice(situation="goal in front"): "no situations",
        Choice(source="made"): "add --situation",
    }.items():
        with pytest.raises(ConfigError, match=reason):
            inspect_run(trained, ["attribution"], choice)


def test_damaged_arrays_are_made_again(trained):
    inspect_run(trained, ["static"])
    npz = trained.folder / "inspect" / "static.npz"
    whole = npz.read_bytes()
    npz.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorruptError, match=r"static\.npz"):
        load(npz.with_suffix(""))
    inspect_run(trained, ["static"])
    assert npz.read_bytes() == whole


@pytest.mark.parametrize(
    ("words", "setting"),
    [
        (["--components", "0.0,mlp 1,0.0"], "--components"),
        (["--analyses", "attentoin"], "attention"),
        (["--contexts", "dreams"], "--contexts"),
        (["--checkpoints", "all"], "--checkpoints"),
        (["--asked", "high"], "--asked"),
    ],
)
def test_bad_input_names_the_setting_with_exit_code_2(tmp_path, capsys, words, setting):
    assert exit_code(VERBS["analyze"], ["--root", str(tmp_path), *words]) == 2
    assert setting in capsys.readouterr().err


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
    mean, interval = over_groups(values)
    np.testing.assert_array_equal(mean, [3, 3, np.nan])
    assert interval[0, 0] < 3 < interval[1, 0] and np.isnan(interval[:, 1:]).all()
    assert np.isnan(over_groups(values[:1])[1]).all()
