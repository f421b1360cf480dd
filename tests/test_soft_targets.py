"""Soft targets: the source's action probabilities, from its policy to the store to the loss."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from training_row import SHORT, assert_same_bits, forget_last_checkpoint, logged, train

from ad.collection.collect import collect
from ad.collection.job import Batch, new_source
from ad.config.parser import load
from ad.config.schema import MethodConfig, ModelConfig
from ad.data.dataset import load_data
from ad.data.schema import FIELDS, LEVELS, PROBABILITIES, quantised
from ad.data.store import load_unit
from ad.errors import ConfigError, CorruptError
from ad.methods import new_method
from ad.models.sequence_model import SequenceModel
from ad.registry import METHODS, SOURCES, TOKENIZERS
from ad.reporting.verify import damaged_histories, repair_histories
from ad.runtime.files import write_sealed
from ad.runtime.run import Run, dataset_folder, unit_folder

TASKS = np.array([[0, 0], [0, 1], [2, 2]])
STORED = ["--source.store_probabilities", "true"]
SOFT = [*STORED, "--training.targets", "probabilities"]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9).filter(lambda row: sum(row) > 0))
def test_levels_add_up_and_are_less_than_one_level_off(row):
    policy = np.array(row) / sum(row)
    levels = quantised(np.cumsum(policy.astype(np.float32)))
    assert levels.dtype == np.uint8 and levels.sum(dtype=int) == LEVELS
    np.testing.assert_array_less(np.abs(levels / LEVELS - policy), 1.0001 / LEVELS)


def test_a_certain_action_has_all_levels_and_an_impossible_one_none():
    policies = np.eye(5)[[0, 2, 4]]
    np.testing.assert_array_equal(quantised(np.cumsum(policies, -1)), LEVELS * policies)


@pytest.fixture(params=SOURCES)
def algorithm(request) -> list[str]:
    """The words that choose each registered source."""
    return ["--source.algorithm", request.param]


def whole(blocks) -> dict[str, np.ndarray]:
    blocks = list(blocks)
    return {name: np.concatenate([b.arrays[name] for b in blocks]) for name in blocks[0].arrays}


def test_storing_them_changes_nothing_else(smoke, tmp_path, algorithm):
    hard, soft = (
        whole(new_source(smoke(tmp_path, *algorithm), TASKS).run(60, soft))
        for soft in (False, True)
    )
    assert soft.keys() - hard.keys() == {PROBABILITIES}
    for name, array in hard.items():
        np.testing.assert_array_equal(array, soft[name])


def test_actions_are_taken_as_often_as_their_probabilities_say(smoke, tmp_path, algorithm):
    words = [*algorithm, "--source.num_envs", "400", "--data.context_length", "1"]
    data = whole(new_source(smoke(tmp_path, *words), TASKS).run(50, True))
    policy = data[PROBABILITIES].reshape(-1, 5) / LEVELS  # [60000, A]
    taken = np.eye(5)[data["action"].ravel()]
    for low, high in ((0.0, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 1.01)):
        inside = (policy >= low) & (policy < high)
        if inside.sum() > 500:
            error = 4 * (0.25 / inside.sum()) ** 0.5 + 1 / LEVELS
            assert abs(taken[inside].mean() - policy[inside].mean()) < error


def test_a2c_stores_the_policy_that_acted(smoke, tmp_path):
    source = new_source(smoke(tmp_path, "--source.algorithm", "a2c"), TASKS)
    for update in range(1, 4):
        policy = source.table.probabilities.copy()
        (block,) = source.run(10 * update, True)
        expected = policy[source.actors.agent, block.arrays["observation"]]
        found = block.arrays[PROBABILITIES] / LEVELS
        assert np.abs(found - expected).max() < 1 / LEVELS
        assert np.abs(policy - source.table.probabilities).max() > 0


def test_noise_distillation_stores_the_noisy_mean_of_all_shortest_ways(smoke, tmp_path):
    noise = ["--source.settings.noise_start", "0.3", "--source.settings.noise_end", "0.3"]
    words = ["--source.algorithm", "noise_distillation", *noise]
    data = whole(new_source(smoke(tmp_path, *words), np.array([[0, 0]])).run(60, True))
    at_start = data[PROBABILITIES][data["observation"] == 4]  # up and left lead to the corner
    expected = np.array([0.06, 0.41, 0.06, 0.41, 0.06])
    assert np.abs(at_start / LEVELS - expected).max() < 1 / LEVELS


@pytest.fixture(scope="module")
def made(smoke, tmp_path_factory):
    """A row with histories that hold probabilities; only to be copied."""
    words = [*SOFT, "--source.env_steps", "800", "--source.algorithm", "noise_distillation"]
    short = [word for path, value in SHORT.items() for word in (f"--{path}", value)]
    row = smoke(tmp_path_factory.mktemp("made"), *words, *short, "--training.precision", "float32")
    collect(Run(row))
    return row


@pytest.fixture
def row(made, tmp_path):
    """A copy of it."""
    shutil.copytree(made.root, tmp_path / "copy")
    return replace(made, root=str(tmp_path / "copy"))


def unit(row, index: int = 0) -> Path:
    return unit_folder(row, Run(row).split.train_tasks[index])


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_the_store_keeps_them_with_their_hash(row):
    found = load_unit(unit(row))
    probabilities = found.arrays[PROBABILITIES]
    assert (probabilities.shape, probabilities.dtype) == ((4, 200, 5), np.uint8)
    assert (probabilities.sum(-1, dtype=int) == LEVELS).all()
    assert f"{PROBABILITIES}.npy" in found.manifest["files"]


def test_by_default_a_history_holds_none_and_lies_where_it_always_did(smoke, tmp_path):
    run = Run(smoke(tmp_path, "--source.env_steps", "800"))
    collect(run)
    assert load_unit(unit(run.config)).arrays.keys() == FIELDS.keys()
    default = load(["--root", str(tmp_path)]).config
    assert dataset_folder(default).name == "darkroom_v0-a2c-492660f8"


@pytest.mark.parametrize("place", [0, 64, -1])
def test_a_flipped_bit_in_them_is_noticed_and_repaired(row, place):
    path = unit(row) / f"{PROBABILITIES}.npy"
    before = hashes(path.parent)
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)
    with pytest.raises(CorruptError):
        load_data(row, (0.0, 1.0))
    damaged = damaged_histories(row)
    assert list(damaged) == [path.parent]
    repair_histories(row, damaged)
    assert hashes(path.parent) == before


def test_a_history_without_them_is_no_history_with_them(row):
    source = replace(row.source, store_probabilities=False)
    training = replace(row.training, targets="sampled")
    hard = replace(row, name="hard", source=source, training=training)
    collect(Run(hard))
    shutil.rmtree(unit(row))
    shutil.copytree(unit(hard), unit(row))
    assert list(damaged_histories(row)) == [unit(row)]
    with pytest.raises(CorruptError, match="it holds no probabilities"):
        load_data(row, (0.0, 1.0))


FORGED = {
    "flat": lambda entry: entry.update(shape=[4, 200]),
    "of other steps": lambda entry: entry.update(shape=[4, 100, 10]),
    "of another type": lambda entry: entry.update(dtype="int8"),
    "larger than the file": lambda entry: entry.update(shape=[4, 200, 6]),
}


@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED)
def test_a_manifest_that_says_of_them_what_cannot_be_is_refused(row, change):
    path = unit(row) / "unit.json"
    manifest = json.loads(path.read_text())
    del manifest["seal"]
    change(manifest["files"][f"{PROBABILITIES}.npy"])
    write_sealed(path, manifest)
    with pytest.raises(CorruptError):
        load_unit(unit(row))


@pytest.mark.parametrize("algorithm", SOURCES)
def test_an_interrupted_collection_goes_on_to_the_same_bytes(smoke, tmp_path, algorithm):
    words = [*STORED, "--source.env_steps", "8800", "--source.algorithm", algorithm]
    runs = []
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
        runs.append(Run(smoke(tmp_path / name, *words)))
    collect(runs[0])
    batch = Batch(runs[1].config, runs[1].split.train_tasks)
    for count, block in enumerate(batch.source.run(batch.steps, True), 1):
        batch.writer.append(block)
        if count == 2:
            break
    batch.save()
    collect(runs[1])
    for index in range(5):
        assert hashes(unit(runs[0].config, index)) == hashes(unit(runs[1].config, index))


def test_a_window_holds_the_policy_of_each_of_its_actions(row):
    windows = load_data(row, (0.0, 1.0)).train
    window, valid = windows.sample(np.random.default_rng(0), 64)
    policy = window[PROBABILITIES]
    assert policy.shape == (*window["action"].shape, 5) and policy.dtype == np.uint8
    taken = np.take_along_axis(policy[:, 1:], window["action"][:, 1:, None], -1)[..., 0]
    assert (taken[valid] > 0).all()


@pytest.fixture(params=TOKENIZERS)
def model(request, spec) -> SequenceModel:
    torch.manual_seed(0)
    config = ModelConfig(width=32, layers=2, heads=2, feed_forward=64, layout=request.param)
    return SequenceModel(spec, config)


@pytest.fixture(params=METHODS)
def method(request):
    return new_method(MethodConfig(name=request.param))


@pytest.fixture
def batch(random_window):
    """Four windows of six decisions, two of one being padding, with policies of five actions."""
    window = random_window(4, 6, seed=0)
    window["action"][:, 1:] %= 5
    policies = np.random.default_rng(0).dirichlet(np.ones(5), size=(4, 7))
    window[PROBABILITIES] = torch.from_numpy(quantised(np.cumsum(policies, -1)))
    valid = torch.ones(4, 6, dtype=torch.bool)
    valid[1, 4:] = False
    return window, valid


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_the_mean_cross_entropy_of_the_policies(method, model, batch, smoothing):
    window, valid = batch
    policies = window[PROBABILITIES][:, 1:] / LEVELS
    policies = (1 - smoothing) * policies + smoothing / 5
    surprise = -(policies * F.log_softmax(model(window), -1)).sum(-1)
    expected = surprise[valid].mean()
    torch.testing.assert_close(method.loss(model, window, valid, smoothing), expected)


def test_the_policies_of_certain_actions_give_the_loss_of_these_actions(method, model, batch):
    window, valid = batch
    actions = window["action"].clamp(max=4)
    certain = window | {PROBABILITIES: (LEVELS * F.one_hot(actions, 5)).to(torch.uint8)}
    hard = {name: value for name, value in window.items() if name != PROBABILITIES}
    torch.testing.assert_close(
        method.loss(model, certain, valid), method.loss(model, hard, valid), rtol=1e-6, atol=1e-6
    )


def test_the_model_does_not_see_the_policies(method, model, batch):
    window, valid = batch
    seen = []

    def spy(given):
        seen.append(set(given))
        return model(given)

    method.loss(spy, window, valid)
    assert seen == [set(window) - {PROBABILITIES}]
    assert PROBABILITIES in window


def test_training_on_them_fits_the_source_better_than_chance(row):
    losses = logged(train(row), "train/loss")
    assert losses[-1] < losses[0] < 1.7  # ln 5 is 1.61


def test_a_training_on_them_resumes_to_the_same_bits(row):
    one, other = (replace(row, name=name) for name in ("one", "other"))
    run = train(other)
    forget_last_checkpoint(run)
    assert_same_bits(train(one), train(other))


def test_hard_targets_on_the_same_histories_are_another_training(row):
    hard = replace(row, name="hard", training=replace(row.training, targets="sampled"))
    assert logged(train(hard), "train/loss") != logged(train(row), "train/loss")


def test_targets_that_no_history_holds_are_refused_before_anything_is_written():
    with pytest.raises(ConfigError, match="can be probabilities only of histories with"):
        load(["--training.targets", "probabilities"])
