"""Training data: the histories of train tasks only, without held-out actors."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_run import finish

from ad.config.schema import MethodConfig, ModelConfig
from ad.data.histories import HistoryStore
from ad.data.load import load_training_set
from ad.data.schema import TransitionChunk
from ad.data.store import HistoryWriter
from ad.errors import ADError, ConfigError
from ad.methods import build_method
from ad.methods.algorithm_distillation import HiddenActions
from ad.methods.base import Method
from ad.models.sequence_model import SequenceModel
from ad.registry import TOKENIZERS
from ad.runtime.run import Run
from ad.training.trainer import Trainer, TrainingData, load_training_data


def write_numbered_histories(config) -> None:
    """Write a history for every task; all observations of an actor are its number."""
    tasks = Run(config).split.all_tasks
    steps = config.source.env_steps // config.source.num_envs
    fields = HistoryStore(config).fields
    chunk = TransitionChunk.empty(fields, steps, len(tasks), config.source.num_envs)
    for array in chunk.arrays.values():
        array[:] = 0
    numbers = np.arange(len(tasks) * config.source.num_envs)
    chunk.arrays["observation"][:] = numbers.reshape(len(tasks), -1)
    chunk.arrays["truncated"][4::5] = True
    folders = [HistoryStore(config).folder(task) for task in tasks]
    writer = HistoryWriter(folders, fields, config.source.num_envs, steps)
    writer.append(chunk)
    writer.close([{} for _ in tasks])


@pytest.fixture(scope="module")
def numbered(smoke, tmp_path_factory):
    """numbered(held_out_actors, *words): an experiment with numbered histories of all tasks."""
    root = tmp_path_factory.mktemp("numbered")
    write_numbered_histories(smoke(root))

    def build(held_out_actors: int, *words: str):
        name = "_".join([f"held_out_{held_out_actors}", *words[1::2]])
        return smoke(root, "--name", name, "--data.held_out_actors", str(held_out_actors), *words)

    return build


def training_data(config) -> TrainingData:
    """Return the samplers of algorithm distillation."""
    return load_training_data(Run(config), build_method(config.method))


def actors_of(config, tasks, actors: range) -> set[int]:
    """Return the numbers of `actors` of `tasks`, which are indices into all tasks."""
    return {int(task) * config.source.num_envs + actor for task in tasks for actor in actors}


@pytest.mark.parametrize("held_out_actors", [1, 2, 3])
def test_held_out_actors_of_train_tasks_are_not_trained_on(numbered, held_out_actors):
    config = numbered(held_out_actors)
    data, train_tasks = training_data(config), Run(config).split.train_index
    kept = range(4 - held_out_actors)
    assert set(data.train.data["observation"]) == actors_of(config, train_tasks, kept)
    others = range(4 - held_out_actors, 4)
    assert set(data.held_out.data["observation"]) == actors_of(config, train_tasks, others)


def test_only_the_configured_number_of_actors_is_trained_on(numbered):
    config = numbered(1, "--data.actors_per_task", "2")
    data, train_tasks = training_data(config), Run(config).split.train_index
    assert set(data.train.data["observation"]) == actors_of(config, train_tasks, range(2))
    assert set(data.held_out.data["observation"]) == actors_of(config, train_tasks, range(3, 4))


def test_only_the_first_steps_of_a_history_are_read(numbered):
    # 4 actors of 1000 steps, episodes of 5: 600 of the task's steps are 30 episodes an actor.
    config = numbered(1, "--data.env_steps", "600")
    data = training_data(config)
    _, steps = np.unique(data.train.data["observation"], return_counts=True)
    assert set(steps) == {150}
    half = load_training_set(Run(config)).sampler(Method.fields, history_part=(0.5, 1.0))
    assert len(half) == len(data.train) // 2


def test_histories_of_held_out_tasks_are_not_read_even_if_they_are_there(numbered):
    config = numbered(0)
    data, split = training_data(config), Run(config).split
    seen = set(data.train.data["observation"])
    assert seen == actors_of(config, split.train_index, range(4))
    assert not seen & actors_of(config, split.held_out_index, range(4))
    assert data.held_out is None


@pytest.fixture
def own_histories(numbered, tmp_path):
    """An experiment with histories that no other test reads."""
    config = numbered(1)
    shutil.copytree(Path(config.root) / "histories", tmp_path / "histories")
    return replace(config, root=str(tmp_path))


def test_a_train_task_without_a_history_stops_training_in_one_sentence(own_histories):
    folder = HistoryStore(own_histories).folder(Run(own_histories).split.train_tasks[2])
    shutil.rmtree(folder)
    with pytest.raises(ConfigError, match=r"1 train tasks have no history.*`ad collect`"):
        Trainer(Run.open(own_histories))


def test_a_part_of_the_histories_without_a_whole_episode_is_refused_in_one_sentence(collected):
    words = ["--method.name", "expert_distillation", "--method.settings.expert_fraction", "0.001"]
    with pytest.raises(ADError):
        finish(Trainer(Run.open(collected("no_episode", *words))))


def test_hidden_actions_are_a_random_share(numbered):
    windows = training_data(numbered(1)).train
    batch = HiddenActions(windows, 0.3).sample(np.random.default_rng(0), 200)
    plain = windows.sample(np.random.default_rng(0), 200)
    hidden = batch.pop("hidden")
    assert hidden.shape == batch["action"].shape and abs(hidden.mean() - 0.3) < 0.03
    for name, values in plain.items():
        np.testing.assert_array_equal(batch[name], values)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_hidden_actions_stay_the_targets_and_no_longer_reach_the_logits(
    spec, random_window, tokenizer
):
    torch.manual_seed(0)
    config = ModelConfig(width=32, layers=1, heads=2, feed_forward=32, tokenizer=tokenizer)
    model, method = SequenceModel(spec, config), build_method(MethodConfig())
    window = random_window(4, 6, seed=0)
    window["action"] %= 5
    hidden = torch.ones(4, 7, dtype=torch.bool)
    none = torch.full_like(window["action"], spec.num_actions)
    surprise = -torch.log_softmax(model(window | {"action": none}), -1)
    for actions in (window["action"], (window["action"] + 1) % 5):
        taken = surprise.gather(-1, actions[:, 1:, None])
        loss, _ = method.loss(model, window | {"action": actions, "hidden": hidden})
        torch.testing.assert_close(loss, taken.mean())


def test_windows_of_transitions_in_files_are_those_of_transitions_in_memory(numbered):
    configs = [numbered(1, "--data.in_memory", value) for value in ("true", "false")]
    inside, outside = (training_data(config).train for config in configs)
    assert all(isinstance(values, np.memmap) for values in outside.data.values())
    batches = [each.sample(np.random.default_rng(0), 8) for each in (inside, outside)]
    for name in batches[0]:
        assert batches[0][name].dtype == batches[1][name].dtype
        np.testing.assert_array_equal(batches[0][name], batches[1][name])
    folder = Path(configs[0].root) / "histories"
    assert not [path for path in folder.iterdir() if path.is_file()]
