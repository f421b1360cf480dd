"""Demonstrations: the data set has the stated policies in the stated shares, or is refused."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest
import torch
from conftest import SMOKE
from recorded import assert_a_restored_source_has_the_same_bits

from ad.cli import VERBS, exit_code
from ad.collection.collect import collect, collect_tasks
from ad.collection.job import CollectionJob, new_source
from ad.config.parser import load_file
from ad.data.checkpoints import checkpoint_at
from ad.data.histories import HistoryStore
from ad.data.manifest import read_manifest
from ad.data.store import PARTIAL
from ad.runtime.locks import locked
from ad.runtime.run import Run
from ad.sources.demonstration_entries import parse_entries
from ad.sources.sb3.policies import Player, Spaces, load_policy
from envs.spaces import observation_parts

LEARNER = ["--source.algorithm", "stable_baselines3", "--source.settings.checkpoints", "4"]
LEARNER += ["--split.num_train_tasks", "2", "--source.env_steps", "1600"]
ARGUMENTS = {
    "PPO": "{n_steps: 50, batch_size: 50, n_epochs: 4, learning_rate: 1e-2}",
    "RecurrentPPO": "{n_steps: 50, batch_size: 200, n_epochs: 1, policy_kwargs: "
    "{lstm_hidden_size: 8}}",
    "DQN": "{learning_starts: 50}",
    "QRDQN": "{learning_starts: 50}",
}


@pytest.fixture(scope="module")
def learned(smoke, tmp_path_factory):
    """learned(algorithm): the run of an agent that has been recorded with four checkpoints."""
    runs = {}

    def run(algorithm: str = "PPO") -> Run:
        if algorithm not in runs:
            words = [*LEARNER, "--source.settings.algorithm", algorithm]
            words += ["--source.settings.arguments", ARGUMENTS[algorithm]]
            runs[algorithm] = Run.open(smoke(tmp_path_factory.mktemp(algorithm), *words))
            collect(runs[algorithm])
        return runs[algorithm]

    return run


def words(entries: str, *others: str) -> list[str]:
    own = ["--source.algorithm", "demonstrations", "--source.settings.entries", entries]
    return [*own, "--split.num_train_tasks", "2", "--source.env_steps", "400", *others]


def record(config, tasks, steps: int = 100) -> dict[str, np.ndarray]:
    """What the demonstrations record, arrays [T, K, N] by field."""
    (chunk,) = new_source(config, np.asarray(tasks)).run(steps)
    return chunk.arrays


def test_a_data_set_of_mixed_quality_has_its_shares_of_actors(smoke, tmp_path, learned):
    run = learned()
    entries = f"[{{run: {run.folder}, act: greedy, share: 0.5}}, "
    entries += f"{{dataset: {HistoryStore(run.config).path}, at: 0, share: 0.25}}, "
    entries += "{act: random, share: 0.25}]"
    config = smoke(tmp_path, *words(entries))
    assert collect(Run.open(config)) == 2
    source = new_source(config, run.split.train_tasks)
    assert np.bincount(source.entry_of_actor).tolist() == [2, 1, 1]


def test_each_task_is_played_by_the_agent_that_learned_it(smoke, tmp_path, learned):
    run = learned()
    config = smoke(tmp_path, *words(f"[{{run: {run.folder}, act: greedy, share: 1}}]"))
    data = record(config, run.split.train_tasks)
    env = Spaces(1, observation_parts(run.world), 5)
    for k, task in enumerate(run.split.train_tasks):
        folder = HistoryStore(run.config).folder(task)
        path = checkpoint_at(folder, read_manifest(folder), 1.0)
        player = Player(load_policy(path, env), env, 1)
        logits = player({"": data["observation"][:, k, 0]}, np.zeros(100, bool))
        np.testing.assert_array_equal(data["action"][:, k, 0], logits.argmax(1))


@pytest.mark.parametrize("algorithm", ARGUMENTS)
def test_a_policy_of_any_algorithm_plays_the_same_alone_as_among_others(
    smoke, tmp_path, learned, algorithm
):
    run = learned(algorithm)
    config = smoke(tmp_path, *words(f"[{{run: {run.folder}, share: 1}}]"))
    together = record(config, run.split.train_tasks)
    alone = record(config, run.split.train_tasks[1:])
    for name, values in alone.items():
        np.testing.assert_array_equal(together[name][:, 1:], values)
    assert len(np.unique(together["action"])) > 1


def test_a_recurrent_policy_forgets_where_an_episode_begins(learned):
    run = learned("RecurrentPPO")
    folder = HistoryStore(run.config).folder(run.split.train_tasks[0])
    env = Spaces(1, observation_parts(run.world), 5)
    policy = load_policy(folder / "checkpoint_1600.zip", env)
    seen, begins = {"": np.array([3, 3])}, np.array([True, False])
    player = Player(policy, env, 2)
    first = player(seen, np.array([True, True]))
    again = player(seen, begins)
    np.testing.assert_array_equal(first[0], again[0])
    assert (first[1] != again[1]).any()


def test_checkpoints_are_chosen_by_the_fraction_of_the_history(learned):
    run = learned()
    folder = HistoryStore(run.config).folder(run.split.train_tasks[0])
    manifest = read_manifest(folder)
    chosen = [checkpoint_at(folder, manifest, at).name for at in (0, 0.3, 0.625, 1)]
    assert chosen == [f"checkpoint_{steps}.zip" for steps in (400, 400, 1200, 1600)]


def test_optimal_and_random_policies_need_no_checkpoint(smoke, tmp_path):
    entries = "[{policy: optimal, share: 0.5}, {policy: optimal, act: {bottom_k: 1}, share: 0.25}, "
    config = smoke(tmp_path, *words(entries + "{act: random, share: 0.25}]"))
    reward = record(config, [[2, 2]], 400)["reward"].mean((0, 1))
    actors = new_source(config, np.array([[2, 2]])).entry_of_actor
    best, worst, uniform = (reward[actors == e].mean() for e in range(3))
    assert best == 0.5  # two steps to the goal
    assert worst < uniform < 0.25


LOGITS = np.log([[0.1, 0.5, 0.3, 0.1]])
WAYS = {
    "sampled": [0.1, 0.5, 0.3, 0.1],
    "greedy": [0, 1, 0, 0],
    "random": [0.25] * 4,
    "{temperature: 0.5}": np.array([1, 25, 9, 1]) / 36,
    "{top_k: 2}": [0, 0.625, 0.375, 0],
    "{bottom_k: 3}": [0.2, 0, 0.6, 0.2],
    "{top_k: 9}": [0.1, 0.5, 0.3, 0.1],
}


@pytest.mark.parametrize("act", WAYS)
def test_each_way_to_act_has_its_probabilities(act):
    plain = act
    if act[0] == "{":
        way, number = act.strip("{}").split(": ")
        plain = {way: float(number) if way == "temperature" else int(number)}
    (entry,) = parse_entries([{"policy": "optimal", "act": plain, "share": 1}])
    np.testing.assert_allclose(entry.probabilities(LOGITS), [WAYS[act]])


def test_the_memory_of_recurrent_policies_is_restored(smoke, tmp_path, learned):
    run = learned("RecurrentPPO")
    config = smoke(tmp_path, *words(f"[{{run: {run.folder}, share: 1}}]"))
    one, other = (new_source(config, run.split.train_tasks) for _ in range(2))
    assert_a_restored_source_has_the_same_bits(one, other)


REFUSED = {
    "shares that add up to 1, not to 0.75": "[{act: random, share: 0.75}]",
    "must give entry 2 an actor: its share of source.num_envs (4) is 0.4": (
        "[{act: random, share: 0.9}, {policy: optimal, share: 0.1}]"
    ),
    "entry 1: there is no file nowhere.zip": "[{checkpoint: nowhere.zip, share: 1}]",
    "nowhere has no history of the task": "[{dataset: nowhere, share: 1}]",
    "act must be one of sampled, greedy, random": "[{policy: optimal, act: top, share: 1}]",
    "needs one of checkpoint, dataset": "[{act: greedy, share: 1}]",
    "polic is not one of checkpoint": "[{polic: optimal, share: 1}]",
    "is not a checkpoint of this suite": f"[{{checkpoint: {SMOKE}, share: 1}}]",
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_list_that_cannot_play_is_refused_before_anything_runs(tmp_path, capsys, reason):
    refused(tmp_path, capsys, reason.removeprefix("entry 1: "), words(REFUSED[reason]))


def refused(root, capsys, reason: str, options: list[str]) -> None:
    """Check that collecting ends with one sentence that has `reason`, and writes nothing."""
    before = set(root.iterdir())
    command = ["--config_path", str(SMOKE), "--root", str(root), *options]
    assert exit_code(VERBS["collect"], command) == 2
    (sentence,) = capsys.readouterr().err.strip().splitlines()
    assert reason in sentence and "source.settings" in sentence
    assert set(root.iterdir()) == before


def test_a_checkpoint_of_another_world_is_refused(tmp_path, capsys, learned):
    folder = HistoryStore(learned().config).folder(learned().split.train_tasks[0])
    entries = f"[{{checkpoint: {folder / 'checkpoint_400.zip'}, share: 1}}]"
    refused(
        tmp_path,
        capsys,
        "does not fit the world, whose observations are Discrete(16)",
        words(entries, "--env.kwargs", "{size: 4}"),
    )


def test_playing_leaves_the_generator_and_the_threads_of_torch_as_they_were(
    smoke, tmp_path, learned
):
    torch.manual_seed(3)
    before = torch.get_rng_state(), torch.get_num_threads()
    run = learned()
    record(smoke(tmp_path, *words(f"[{{run: {run.folder}, share: 1}}]")), run.split.train_tasks)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]


LEARNING = """
env: {kwargs: {size: 3}, episode_length: 5}
split: {num_train_tasks: 5}
source:
  algorithm: stable_baselines3
  env_steps: 1600
  num_envs: 4
  settings:
    checkpoints: 4
    arguments: {n_steps: 50, batch_size: 50, n_epochs: 4, learning_rate: 1e-2}
"""


@pytest.fixture
def learning(tmp_path):
    """The file of an experiment of PPO that nothing is collected of."""
    path = tmp_path / "learning.yaml"
    path.write_text(LEARNING)
    return path


def played_by(path, *others: str) -> list[str]:
    """The words of demonstrations of the first and the last agents of the experiment `path`."""
    entries = f"[{{experiment: {path}, at: 0, share: 0.5}}, {{experiment: {path}, share: 0.5}}]"
    return words(entries, *others)


def collected_folders(root) -> list[str]:
    """The folders of all histories in `root`, relative to that of all datasets."""
    histories = root / "histories"
    return sorted(str(p.parent.relative_to(histories)) for p in histories.rglob("manifest.json"))


def inputs(run: Run) -> list[dict[str, str]]:
    """The files that the histories of `run` were made of, with their hashes."""
    folders = map(HistoryStore(run.config).folder, run.split.train_tasks)
    return [read_manifest(folder)["inputs"] for folder in folders]


def test_the_agents_of_an_experiment_learn_first(smoke, tmp_path, learning):
    run = Run.open(smoke(tmp_path, *played_by(learning)))
    assert collect(run) == 2
    folders = collected_folders(tmp_path)
    names = sorted(name.split("-")[1] for name in folders)
    assert names == ["demonstrations"] * 2 + ["stable_baselines3"] * 2
    for own in inputs(run):
        names = [path.rpartition("/")[2] for path in own]
        assert names == ["checkpoint_400.zip", "checkpoint_1600.zip"]
        assert all((tmp_path / path).is_file() for path in own)
    changes = {"root": str(tmp_path), "name": "learning", "split.num_train_tasks": 2}
    assert collect(run) == collect(Run.open(load_file(learning, **changes))) == 0
    assert collected_folders(tmp_path) == folders


def test_a_changed_experiment_makes_other_demonstrations(smoke, tmp_path, learning):
    run = Run.open(smoke(tmp_path, *played_by(learning)))
    assert collect(run) == 2
    before = inputs(run)
    learning.write_text(LEARNING.replace("1e-2", "1e-3"))
    assert len(HistoryStore(run.config).missing(run.split.train_tasks)) == 2  # no agents yet
    assert collect(run) == 2 and collect(run) == 0
    for old, new in zip(before, inputs(run), strict=True):
        assert set(old.values()).isdisjoint(new.values())
    assert len(collected_folders(tmp_path)) == 6


def interrupted(run: Run) -> HistoryStore:
    """Leave an unfinished collection of `run` with a snapshot, once its agents have learned."""
    histories = HistoryStore(run.config)
    for needed in histories.needed:
        collect_tasks(needed, run.split.train_tasks)
    job = CollectionJob(histories, run.split.train_tasks)
    job.writer.append(next(job.source.run(job.steps)))
    job.save()
    return histories


@pytest.mark.parametrize("changed", [False, True])
def test_interrupted_demonstrations_resume_with_the_same_agents_only(
    smoke, tmp_path, learning, capsys, changed
):
    options = played_by(learning, "--source.env_steps", "4000")
    run = Run.open(smoke(tmp_path, *options))
    histories = interrupted(run)
    assert collected_folders(tmp_path)[0].startswith("darkroom_v0-stable_baselines3")
    if changed:
        learning.write_text(LEARNING.replace("1e-2", "1e-3"))
    assert collect(run) == 2 and not list(histories.path.glob(f"{PARTIAL}*"))
    told = capsys.readouterr().err
    assert ("files that its source reads have changed" in told) == changed
    assert ("resuming 2 histories" in told) != changed


def test_a_collection_waits_for_agents_that_learn_elsewhere(smoke, tmp_path, learning):
    run = Run.open(smoke(tmp_path, *played_by(learning)))
    histories = HistoryStore(run.config)
    (agents,) = histories.needed
    held = Event()

    def hold() -> None:
        with locked(agents.path):
            held.set()
            time.sleep(1)  # the collection waits for this lock, and must hold no other one
            with locked(histories.path):
                pass

    with ThreadPoolExecutor(1) as threads:
        holding = threads.submit(hold)
        held.wait()
        assert collect(run) == 2 and holding.done()
        holding.result()
