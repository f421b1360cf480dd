"""Tasks that change between episodes: the schedule, and environments that follow it."""

import numpy as np
import pytest
from recorded import assert_a_restored_source_has_the_same_bits
from training_run import train

import envs
from ad.collection.collect import collect
from ad.collection.job import new_source
from ad.config.parser import load
from ad.data.episodes import episodes
from ad.data.histories import HistoryStore
from ad.data.load import load_training_set
from ad.data.manifest import read_manifest
from ad.data.store import load_history
from ad.evaluation import metrics
from ad.evaluation.evaluate import evaluate
from ad.evaluation.metrics import TaskFacts
from ad.evaluation.results import Evaluation, read_results
from ad.evaluation.summary import read_summary, split_entry
from ad.evaluation.transfer import evaluate_worlds
from ad.reporting.report import report
from ad.runtime.run import Run
from envs.changes import Changes
from envs.rng import derive_key, uniform
from envs.tasks import task_name

RIGHT, STAY = 4, 0
POOL = np.array([[0], [1], [2], [3], [4]])


def starts_of_tasks(changes: Changes, first, episodes: int) -> list[list[int]]:
    """The episodes, from 0, at which each environment has another task than before."""
    tasks = changes.tasks(np.array(first), episodes)
    return [np.flatnonzero((own[1:] != own[:-1]).any(1) + 0).tolist() for own in tasks]


def test_a_task_changes_after_every_n_episodes_or_never():
    keys, first = [3, 4], [[2], [0]]
    assert starts_of_tasks(Changes(0, keys, [POOL] * 2), first, 9) == [[], []]
    assert starts_of_tasks(Changes(1, keys, [POOL] * 2), first, 4) == [[0, 1, 2]] * 2
    assert starts_of_tasks(Changes(3, keys, [POOL] * 2), first, 9) == [[2, 5]] * 2


def test_a_probability_and_a_task_are_drawn_by_the_key_alone():
    together = Changes(0.3, [8, 9, 8], [POOL, POOL, POOL[:3]]).tasks(np.array([[1], [1], [0]]), 200)
    assert np.array_equal(together[1:2], Changes(0.3, [9], [POOL]).tasks(np.array([[1]]), 200))
    drawn = uniform(np.uint64(8), 2 * np.arange(200)) < 0.3
    assert np.array_equal(np.diff(together[0, :, 0]) != 0, drawn[1:])
    assert np.array_equal(np.diff(together[2, :, 0]) != 0, drawn[1:])  # the key says when
    assert set(together[2].ravel()) == {0, 1, 2}
    # 5 tasks in turn, each with a quarter of the moves to each of the other four.
    many = Changes(1, range(4000), [POOL] * 4000).tasks(np.full((4000, 1), 2), 2)[:, 1, 0]
    assert np.allclose(np.bincount(many) / 4000, [0.25, 0.25, 0, 0.25, 0.25], atol=0.03)


def test_the_goal_of_a_room_moves_between_two_episodes():
    """A corridor of the middle row: the goal is one or two cells right of the start."""
    pool = np.array([[2, 3], [2, 4]])
    changes = Changes(2, [1, 1], [pool] * 2)
    env = envs.make_vec("DarkRoom-v0", pool, 3, changes=changes, size=5, terminate=False)
    env.reset(seed=0)
    returns, tasks = np.zeros((5, 2)), []
    for episode in range(5):
        tasks.append(env.unwrapped.tasks[:, 1].tolist())
        for action in (RIGHT, RIGHT, STAY):
            _, reward, _, truncated, info = env.step(np.array([action] * 2))
            returns[episode] += reward
    assert tasks == [[3, 4], [3, 4], [4, 3], [4, 3], [3, 4]]
    # Right, right and stay: one step on the nearer goal, two on the farther one.
    assert returns.tolist() == [[1, 2], [1, 2], [2, 1], [2, 1], [1, 2]]
    assert truncated.all() and info["final_obs"].tolist() == [14, 14]
    env.reset(seed=0)
    assert env.unwrapped.tasks[:, 1].tolist() == [3, 4]  # a seed restarts the schedule


def changing(pool, env_id="DarkRoom-v0", keys=(1, 2), **kwargs):
    """Return two environments whose tasks change after each episode."""
    changes = Changes(1, keys, [np.array(pool)] * len(keys))
    return envs.make_vec(env_id, [pool[0]] * 2, 3, changes=changes, **kwargs)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda: Changes(2.5, [1], [POOL]), "whole number of episodes, not 2.5"),
        (lambda: Changes(-1, [1], [POOL]), "not -1"),
        (lambda: Changes(2, [1], [POOL[:1]]), "no other one"),
        (lambda: Changes(2, [1, 2], [POOL]), "2 keys are not those of 1 pools"),
        (lambda: Changes(2, [1], [np.repeat(POOL, 2, 0)]), "all different"),
        (lambda: changing([[0, 1], [0, 2]]).reset(seed=[1]), "expected 2 seeds, got 1"),
        (lambda: changing([[0, 1], [40, 1]]), "a pool has a task of another world"),
        (lambda: changing([[0, 1], [0, 2]], keys=[1]), "1 keys, and 2 environments"),
        (lambda: changing([[1], [3]], "BernoulliBandit-v0", drift=0.1), "drift"),
        (lambda: Changes(2, [1], [POOL]).tasks(np.array([[7]]), 3), "one of those"),
        (
            lambda: envs.make_vec(
                "FrozenLake-v1",
                [[0]],
                task_kwargs=[{}, {"is_slippery": False}],
                changes=Changes(2, [1], [POOL]),
            ),
            "FrozenLake-v1 cannot change",
        ),
    ],
)
def test_a_bad_schedule_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        change()


def test_scores_of_a_change_by_hand():
    """Five tasks in one rollout each; the task changes at episode 6 of 12, or as said."""
    halves = [0] * 6 + [1] * 6
    shares = np.array(
        [
            [*[0, 1, 1, 1, 1, 1], *[0, 1, 1, 1, 1, 1]],  # 0.8 of 1 is reached with the fifth
            [*[0, 1, 1, 1, 1, 1], *[0, 0, 1, 1, 1, 1]],  # with the sixth
            [*[0, 1, 0, 1, 0, 0], *[0, 0, 0, 0, 0, 0]],  # never: all six count
            [*[0, 0, 0, 0, 0, 0], *[1, 1, 1, 1, 1, 1]],  # nothing to recover
            [*[1, 1, 1, 1, 1, 1], *[1, 1, 1, 1, 1, 0]],  # two changes, the second too late
        ],
        float,
    )
    present = np.array([halves] * 4 + [[0] * 6 + [1] * 5 + [2]])
    found = metrics.at_changes(shares[:, None], present[:, None])
    expected = {
        "share_before_change": [1, 1, 0.4, 0, 1],
        "share_after_change": [0.8, 0.6, 0, 1, 0.5],
        "recovered": [1, 1, 0, np.nan, 1],
        "recovery_episodes": [5, 6, 6, np.nan, 5],
    }
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values)
    assert np.isnan(metrics.at_changes(shares[:1, None], present[:1, None] * 0)["recovered"]).all()


def test_returns_are_compared_with_the_optimum_of_the_present_task():
    tasks, present = np.array([[0], [1]]), np.array([[[0, 0, 1]], [[1, 1, 0]]])
    returns = np.array([[[1.0, 2, 2]], [[4, 2, 1]]])
    facts = TaskFacts(np.array([2.0, 4]), np.array([0.0, 2]), np.ones(2), True)
    unknown = np.full(returns.shape, np.nan)
    own = Evaluation(tasks, returns, unknown, unknown, unknown, returns, present)
    entry = split_entry(own, facts)
    assert [task["nauc"] for task in entry["per_task"]] == pytest.approx([2 / 3, 2 / 3])
    assert [task["regret"] for task in entry["per_task"]] == pytest.approx([1, 1])
    assert [task["optimal_return"] for task in entry["per_task"]] == pytest.approx([8 / 3, 10 / 3])
    between = [task["normalized_return_last10"] for task in entry["per_task"]]
    assert between == pytest.approx([0.5, 0.5])  # (1/2 + 1 + 0) / 3 and (1 + 0 + 1/2) / 3
    assert entry["path_ratio_last10"] is None


ROOM = ("--env.kwargs", "{size: 5}", "--env.episode_length", "12", "--split.num_train_tasks", "18")
PLAYED = ("--method.name", "source", "--source.algorithm", "q_learning")
PLAYED = (*PLAYED, "--evaluation.episodes", "30", "--evaluation.eval_seeds", "2")


def test_a_learner_relearns_after_a_change_among_the_tasks_of_its_split(smoke, tmp_path):
    run = Run.open(smoke(tmp_path, *ROOM, *PLAYED, "--env.change", "15"))
    evaluate(run)
    evaluations, split = read_results(run.folder / "results.csv"), run.split
    held_out = evaluations["held_out"]
    assert held_out.tasks.tolist() == split.held_out_tasks.tolist()
    expected = Changes(
        15, [derive_key(1, "change", task_name(held_out.tasks[0]))], [split.held_out_tasks]
    ).places(held_out.tasks[:1], 30)
    np.testing.assert_array_equal(held_out.present[0, 1], expected[0])
    assert (np.diff(held_out.present, axis=2) != 0).sum() == 6 * 2  # once in each rollout
    results = read_summary(run)
    own, references = results["splits"]["held_out"], results["references"]
    assert own["share_before_change"] > 0.95 and 0.6 < own["recovered"] <= 1
    assert own["share_after_change"] < own["share_before_change"]
    assert own["nauc"] > references["random"]["held_out"]["nauc"] + 0.3
    assert set(references) == {"random", "tabular_learner", "restarted_learner"}
    # A restarted learner is a new one: before the first change both are the same.
    curves = [
        references[f"{name}_learner"]["held_out"]["curve"] for name in ("tabular", "restarted")
    ]
    assert curves[0][:15] == curves[1][:15] and curves[0][15:] != curves[1][15:]
    report(run)


def test_histories_that_end_before_a_change_are_a_warning(smoke, tmp_path, capsys):
    words = ["--env.change", "5", "--data.history_stride", "40", "--source.env_steps", "800"]
    run = Run.open(smoke(tmp_path, "--source.algorithm", "q_learning", *words))
    collect(run), load_training_set(run)
    assert "than env.change times data.history_stride (200)" in capsys.readouterr().err


def test_the_tasks_of_a_history_follow_from_its_manifest(smoke, tmp_path, capsys):
    words = ("--env.change", "2", "--data.history_stride", "3", "--source.env_steps", "400")
    run = Run.open(smoke(tmp_path, "--source.algorithm", "q_learning", *words))
    collect(run)
    task = run.split.train_tasks[1]
    folder = HistoryStore(run.config).folder(task)
    history, own = load_history(folder), read_manifest(folder)["changes"]
    changes = Changes(own["rate"], [own["key"]], [np.array(own["tasks"])])
    assert own["rate"] == 6 and own["tasks"] == run.split.train_tasks.tolist()
    whole = episodes(history.arrays["terminated"], history.arrays["reward"])
    goals = changes.tasks(task[None], len(whole.stop))[0] @ [3, 1]
    number = history_index(history.arrays)
    ends = history.arrays["terminated"]
    np.testing.assert_array_equal(
        history.arrays["next_observation"][ends], goals[number[ends]]
    )  # an episode ends at the goal of its task
    assert len(set(number[ends] // 6)) > 2
    load_training_set(run)
    assert "no task changes" not in capsys.readouterr().err
    other = smoke(tmp_path, "--source.algorithm", "q_learning", *words, "--split.split_seed", "3")
    assert HistoryStore(other).path != HistoryStore(run.config).path


def history_index(arrays) -> np.ndarray:
    """The number of each transition's episode within its actor."""
    done = arrays["terminated"] | arrays["truncated"]
    return done.cumsum(1) - done


@pytest.mark.parametrize("algorithm", ["a2c", "q_learning"])
def test_a_collection_of_changing_tasks_resumes_with_the_same_bits(smoke, tmp_path, algorithm):
    words = ("--source.algorithm", algorithm, "--env.change", "0.3", "--source.env_steps", "8800")
    config = smoke(tmp_path, *words)
    tasks = Run(config).split.train_tasks[:2]
    assert_a_restored_source_has_the_same_bits(*(new_source(config, tasks) for _ in range(2)))


def test_asked_returns_are_of_the_own_world_where_another_one_changes():
    asked = ["--evaluation.calibration", "[1]", "--evaluation.asked_returns", "[1]"]
    method = ["--method.name", "decision_transformer"]
    assert load([*method, *asked, "--evaluation.worlds", "[{change: 6}]"]).evaluation.calibration


def test_a_still_run_is_evaluated_under_change_with_its_own_results_untouched(
    collected, tmp_path_factory
):
    config = collected("still", "--evaluation.worlds", "[{change: 6}]")
    run = train(config)
    evaluate(run)
    before = (run.folder / "results.json").read_bytes()
    (there,) = evaluate_worlds(run)
    assert (run.folder / "results.json").read_bytes() == before
    assert there.folder.name == "change_6" and evaluate_worlds(run) == []
    changed = read_results(there.folder / "results.csv")["held_out"]
    still = read_results(run.folder / "results.csv")["held_out"]
    assert still.present is None and (changed.present[..., 6:] != changed.present[..., :1]).all()
    np.testing.assert_array_equal(changed.returns[..., :6], still.returns[..., :6])
