"""References: against every possible walk, against known values, and of the source agents."""

import itertools

import numpy as np
import pytest

import envs
from ad.config.parser import load
from ad.config.schema import EnvConfig, Experiment, SplitConfig
from ad.config.world import configured_split, configured_world
from ad.errors import ConfigError
from ad.evaluation.evaluate import load_model
from ad.evaluation.metrics import nauc
from ad.evaluation.references import evaluated_references, random_references, source_references
from ad.evaluation.results import Evaluation, read_results
from ad.evaluation.source_play import learned_returns
from ad.pipeline import collect, evaluate, train
from ad.runtime.run import Run
from envs.grid.dark_room import DarkRoom
from envs.grid.explorer import explorer_paths

STEPS = 4  # of an episode in the rooms below: 625 walks


def room(size: int = 3, **kwargs):
    world = envs.make_base("DarkRoom-v0", size=size, **kwargs)
    return world, world.all_tasks()


def every_walk(world, task, value) -> float:
    """The mean of `value(cells after each step)` over all action sequences and starts."""
    successors, goal = world.successors(), np.ravel_multi_index(tuple(task), world.shape)
    values = []
    for start in world.start_observations():
        for actions in itertools.product(range(5), repeat=STEPS):
            cell, cells = start, []
            for action in actions:
                cell = successors[cell, action]
                cells.append(cell)
            if start != goal:
                values.append(value(np.array(cells) == goal))
    return np.mean(values)


@pytest.mark.parametrize("start", ["center", "random"])
def test_random_is_the_mean_over_all_walks(start):
    for ends, value in ((True, np.any), (False, np.sum)):
        world, tasks = room(start=start, terminate=ends)
        line = world.references(tasks, STEPS, episodes=1)["random"]
        for k in (0, 1):  # a corner and a side
            assert line.returns[k, 0] == pytest.approx(every_walk(world, tasks[k], value))
            assert line.successes[k, 0] == pytest.approx(every_walk(world, tasks[k], np.any))


@pytest.mark.parametrize("ends", [True, False])
def test_random_then_optimal_is_random_until_the_first_hit_and_perfect_ever_after(ends):
    def first_episode(on_goal: np.ndarray) -> float:
        if not on_goal.any():
            return 0
        return 1 if ends else STEPS - int(on_goal.argmax())  # stays from its arrival on

    world, tasks = room(terminate=ends)
    line = world.references(tasks, STEPS, episodes=2)["random_then_optimal"]
    found, first = (every_walk(world, tasks[0], value) for value in (np.any, first_episode))
    best = world.optimal_return(tasks, STEPS)[0]
    assert line.returns[0] == pytest.approx([first, found * best + (1 - found) * first])
    assert line.successes[0] == pytest.approx([found, found + (1 - found) * found])


def test_that_reference_agrees_with_a_simulation_in_the_room_of_the_benchmark():
    world, tasks = room(size=9)
    line = world.references(tasks, 20, episodes=100)["random_then_optimal"]
    # A simulation of 400,000 walks gives 0.8524 and 0.9828.
    assert nauc(line.returns, np.ones(80)).mean() == pytest.approx(0.8527, abs=1e-4)
    assert line.successes[:, 99].mean() == pytest.approx(0.9830, abs=1e-4)


@pytest.mark.parametrize(("ends", "score"), [(True, 0.984), (False, 0.980)])
def test_the_explorer_is_nearly_optimal_in_the_room_of_the_benchmark(ends, score):
    world, tasks = room(size=9, terminate=ends)
    line = world.references(tasks, 20, episodes=100)["explorer"]
    assert nauc(line.returns, world.optimal_return(tasks, 20)).mean() > score
    assert (line.successes[:, 6:] == 1).all()


def test_explorer_paths_see_every_cell_by_legal_moves_from_the_start():
    world, _ = room(size=9)
    moves, paths = world.successors(), explorer_paths(world.successors(), 40, 20, 100)
    assert len(paths) <= 6 and set(np.concatenate(paths).tolist()) == set(range(81))
    for path in paths:
        assert path[0] == 40 and len(path) == 21
        assert all(after in moves[cell] for cell, after in itertools.pairwise(path))


def test_the_source_curve_stops_where_the_actor_with_the_fewest_episodes_does():
    actors = [[np.array([0, 0, 1, 1.0]), np.array([0, 1, 1.0])], [np.zeros(3), np.ones(5)]]
    world, _ = room()
    lines = source_references(world, actors, episodes=100, last=2)
    assert lines["source"].returns.tolist() == [[0, 0.5, 1], [0.5, 0.5, 0.5]]
    assert lines["source_end"].returns.tolist() == [[1, 1], [0.5, 0.5]]
    assert lines["source_end"].successes.tolist() == [[1, 1], [0.5, 0.5]]


@pytest.mark.parametrize(
    ("size", "episodes", "nauc"), [(9, 100, 0.985), (11, 100, 0.975), (17, 200, 0.9665)]
)
def test_no_agent_exceeds_the_ceiling_on_average_over_all_goals(size, episodes, nauc):
    world = envs.make_base("DarkRoom-v0", size=size)
    lines = world.references(world.all_tasks(), 20, episodes)
    reachable = world.optimal_return(world.all_tasks(), 20) > 0
    means = {name: line.returns[reachable].mean() for name, line in lines.items()}
    assert means["ceiling"] == pytest.approx(nauc, abs=5e-5)
    assert means["random_then_optimal"] < means["explorer"] <= means["ceiling"]


def experiment(**env) -> Experiment:
    return Experiment(env=EnvConfig(**env))


def evaluations(config: Experiment, held_out=slice(3), num_episodes: int = 30) -> dict:
    """Return evaluations without results: the tasks `held_out` with two seeds, others with one."""
    found, tasks = {}, configured_world(config.env).all_tasks()
    for split, own, seeds in (("held_out", tasks[held_out], 2), ("train", tasks[3:5], 1)):
        nothing = np.zeros((len(own), seeds, num_episodes))
        found[split] = Evaluation(own, *[nothing] * 5)
    return found


ROOM = experiment(id="DarkRoom-9x9-Terminating-v1")


def test_the_tabular_learner_finds_each_goal_and_returns_to_it():
    returns = learned_returns(ROOM.env, evaluations(ROOM))
    assert {split: values.shape for split, values in returns.items()} == {
        "held_out": (3, 2, 30),
        "train": (2, 1, 30),
    }
    first = returns["held_out"].argmax(2)
    assert (first > 0).any() and (returns["held_out"][..., 20:] == 1).all()
    split = configured_split(ROOM.env, SplitConfig(num_train_tasks=57))
    lines = evaluated_references(ROOM, split, evaluations(ROOM))
    reference = lines["tabular_learner"]["held_out"]
    assert reference.returns == pytest.approx(returns["held_out"].mean(1))
    assert (reference.p_success >= reference.successes).all() and reference.p_success[0, -1] == 1


def test_a_source_is_a_method_that_learns_each_evaluated_task_from_nothing(tmp_path):
    words = ["--env.id", "DarkRoom-9x9-Terminating-v1", "--root", str(tmp_path)]
    words += ["--method.name", "source", "--source.algorithm", "q_learning"]
    words += ["--split.num_train_tasks", "3", "--split.num_held_out", "4"]
    config = load([*words, "--evaluation.episodes", "30", "--evaluation.eval_seeds", "2"])
    run = Run.open(config)
    for verb in (collect, train, evaluate):
        verb(run)
    assert not (tmp_path / "histories").exists() and not (run.folder / "checkpoints").exists()
    held_out = read_results(run.folder / "results.csv")["held_out"]
    assert held_out.returns.shape == (4, 2, 30) and (held_out.returns[..., 25:] == 1).all()
    before = np.maximum.accumulate(held_out.returns, 2)[..., :-1] > 0
    np.testing.assert_array_equal(held_out.reward_in_context[..., 1:] > 0, before)
    with np.load(run.folder / "trajectories.npz") as played:
        own = played["split"] == "held_out"
        for k, episode in enumerate(played["episode"][own]):
            counts = np.bincount(episode[episode >= 0], minlength=30)
            np.testing.assert_array_equal(counts, held_out.lengths[k, 0])
            rewards = np.bincount(episode[episode >= 0], played["reward"][own][k][episode >= 0])
            np.testing.assert_allclose(rewards, held_out.returns[k, 0])
    with pytest.raises(ConfigError, match="has no model: its method is source"):
        load_model(run)


def test_the_tabular_learner_learns_a_task_without_the_others():
    alone = learned_returns(ROOM.env, evaluations(ROOM, [1]))["held_out"]
    np.testing.assert_array_equal(
        alone[0], learned_returns(ROOM.env, evaluations(ROOM))["held_out"][1]
    )


@pytest.mark.parametrize("kwargs", ["{size: 3}", "{size: 3, terminate: false}"])
def test_random_actions_are_played_where_a_world_cannot_tell_what_they_achieve(kwargs, monkeypatch):
    words = ["--env.kwargs", kwargs, "--env.episode_length", "4", "--split.num_train_tasks", "6"]
    words += ["--evaluation.action", "greedy", "--evaluation.episodes", "500"]
    config = load([*words, "--evaluation.train_eval_seeds", "5"])
    world, split = configured_world(config.env), configured_split(config.env, config.split)
    exact = random_references(world, config, split)
    monkeypatch.setattr(DarkRoom, "random_return", lambda *_: None)
    played = random_references(world, config, split)
    for name, tasks in (("held_out", split.held_out_tasks), ("train", split.train_tasks)):
        computed = world.references(tasks, 4, episodes=500)["random"]
        np.testing.assert_allclose(exact[name].returns, computed.returns)
        for member in ("returns", "successes", "p_success"):
            values, expected = (getattr(line, member) for line in (played[name], computed))
            np.testing.assert_allclose(values, expected, atol=0.05)  # four standard errors
