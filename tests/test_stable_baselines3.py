"""Agents of Stable-Baselines3 as sources: what is recorded, kept, resumed and refused."""

import json
import zipfile

import numpy as np
import pytest
import torch
from conftest import SMOKE
from recorded import played
from stable_baselines3 import PPO

from ad.cli import VERBS, exit_code
from ad.collection.collect import collect
from ad.collection.job import CollectionJob, new_source
from ad.data.histories import HistoryStore
from ad.data.manifest import read_manifest
from ad.data.store import is_complete, load_history
from ad.errors import CorruptError, NumericError
from ad.runtime.run import Run
from ad.sources.sb3.policies import Spaces, checkpoint, load_policy, make_policy
from ad.sources.sb3.settings import SB3Settings
from ad.sources.sb3.stepped_thread import RNGSwap, SteppedThread, get_generators
from envs.minigrid.encoding import WORDS, one_hot
from envs.spaces import Array, Discrete, observation_parts

SB3 = ["--source.algorithm", "stable_baselines3", "--source.settings.checkpoints", "2"]
SHORT = {
    "PPO": "{n_steps: 25, batch_size: 50, n_epochs: 1, learning_rate: lin_1e-2}",
    "A2C": "{n_steps: 25}",
    "DQN": "{learning_starts: 50, train_freq: [4, step], exploration_fraction: 0.5}",
    "RecurrentPPO": "{n_steps: 25, batch_size: 50, n_epochs: 1, policy_kwargs: "
    "{lstm_hidden_size: 8, net_arch: [8], activation_fn: Tanh}}",
    "TRPO": "{n_steps: 25, batch_size: 100}",
    "QRDQN": "{learning_starts: 50}",
}
PPO_WORDS = [*SB3, "--source.settings.arguments", SHORT["PPO"]]
POLE = ["--env.id", "CartPole-v1", "--env.kwargs", "{}", "--env.tasks", "[{}, {}]"]
POLE += ["--env.episode_length", "20", "--split.num_train_tasks", "1", "--model.encoder", "mlp"]
POLE += ["--model.reward", "projection"]
RING = ["--env.id", "tests/worlds.py:Silent", "--env.kwargs", "{parts: true}"]
RING += ["--split.num_train_tasks", "3", "--model.encoder", "table"]
ARMS = ["--env.id", "tests/worlds.py:Bandit", "--env.kwargs", "{}", "--model.encoder", "table"]


def record(config, tasks, steps: int = 100) -> dict[str, np.ndarray]:
    """What a source records, arrays [T, K, N, ...] by field."""
    return played(new_source(config, np.array(tasks)), steps)


@pytest.mark.parametrize("algorithm", SHORT)
def test_the_history_of_a_task_depends_on_no_other_task(smoke, tmp_path, algorithm):
    words = [*SB3, "--source.settings.algorithm", algorithm]
    config = smoke(tmp_path, *words, "--source.settings.arguments", SHORT[algorithm])
    together, alone = record(config, [[0, 0], [2, 2]]), record(config, [[2, 2]])
    for name, values in alone.items():
        np.testing.assert_array_equal(together[name][:, 1:], values)


@pytest.mark.parametrize("world", [POLE, RING], ids=["arrays", "parts"])
def test_observations_of_any_kind_are_recorded(smoke, tmp_path, world):
    config = smoke(tmp_path, *PPO_WORDS, *world)
    data = record(config, Run(config).split.train_tasks)
    ended = data["terminated"] | data["truncated"]
    assert ended.any()
    for name in [name for name in data if name.startswith("observation")]:
        following, reached = data[name][1:], data[f"next_{name}"][:-1]
        np.testing.assert_array_equal(following[~ended[:-1]], reached[~ended[:-1]])


def test_an_agent_takes_only_the_actions_of_its_task(smoke, tmp_path):
    data = record(smoke(tmp_path, *PPO_WORDS, *ARMS), [[3, 0], [6, 1]])
    assert data["action"][:, 0].max() == 2 and data["action"][:, 1].max() == 5


def test_the_recorded_reward_is_the_worlds_also_where_the_time_limit_ends_an_episode(
    smoke, tmp_path
):
    data = record(smoke(tmp_path, *PPO_WORDS), [[2, 2]])
    assert data["truncated"].any()
    np.testing.assert_array_equal(data["reward"], data["next_observation"] == 8)


def test_a_collection_changes_no_generator_and_leaves_no_folder(smoke, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    config = smoke(tmp_path, *PPO_WORDS)
    torch.manual_seed(5)
    before = get_generators()
    record(config, [[0, 0], [2, 2]])
    after = get_generators()
    assert torch.equal(before["torch"], after["torch"]) and before["python"] == after["python"]
    np.testing.assert_array_equal(before["numpy"]["state"]["key"], after["numpy"]["state"]["key"])
    assert not list(tmp_path.glob("SB3*"))  # in which the library would write its log


@pytest.fixture
def run(smoke, tmp_path) -> Run:
    """A run with two train tasks, whose agents take 100 steps in each of four environments."""
    words = ["--source.env_steps", "400", "--split.num_train_tasks", "2"]
    return Run.open(smoke(tmp_path, *PPO_WORDS, *words, "--data.history_stride", "1"))


def test_checkpoints_are_published_with_the_history_and_checked(run):
    collect(run)
    folder = HistoryStore(run.config).folder(run.split.train_tasks[0])
    names = ["checkpoint_200.zip", "checkpoint_400.zip"]
    assert [path.name for path in sorted(folder.glob("*.zip"))] == names
    assert sorted(read_manifest(folder)["checkpoints"]) == names
    path = folder / "checkpoint_200.zip"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptError, match=r"checkpoint_200.zip is not what was written"):
        load_history(folder)
    path.unlink()
    assert not is_complete(folder)


def test_a_checkpoint_is_the_policy_of_its_time_and_the_library_reads_it(run):
    collect(run)
    history = load_history(HistoryStore(run.config).folder(run.split.train_tasks[0]))
    path = history.arrays.folder / "checkpoint_400.zip"
    env = Spaces(1, observation_parts(run.world), 5)
    model = PPO("MlpPolicy", env, device="cpu")
    model.set_parameters(str(path), exact_match=False, device="cpu")
    loaded = load_policy(path, env)
    for name, values in loaded.state_dict().items():
        assert torch.equal(values, model.policy.state_dict()[name])
    with zipfile.ZipFile(path) as file:
        assert json.loads(file.read("settings.json"))["algorithm"] == "PPO"


def test_an_interrupted_collection_resumes_with_the_same_bytes(smoke, tmp_path, capsys):
    words = [*SB3, "--source.settings.algorithm", "RecurrentPPO", "--source.settings.arguments"]
    words += [SHORT["RecurrentPPO"], "--source.env_steps", "4400"]
    words += ["--split.num_train_tasks", "1"]
    folders = []
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
        run = Run.open(smoke(tmp_path / name, *words))
        histories = HistoryStore(run.config)
        if name == "cut":
            job = CollectionJob(histories, run.split.train_tasks)
            chunks = job.source.run(job.steps)
            job.writer.append(next(chunks))
            job.save()
            job.writer.append(next(chunks))
            chunks.close()
        collect(run)
        folders.append(histories.folder(run.split.train_tasks[0]))
    assert "at step 500 of 1100" in capsys.readouterr().err
    whole, cut = ({p.name: p.read_bytes() for p in folder.iterdir()} for folder in folders)
    assert "checkpoint_2200.zip" in whole and whole == cut


def test_a_replay_buffer_is_not_saved(smoke, tmp_path):
    words = [*SB3, "--source.settings.algorithm", "DQN"]
    assert new_source(smoke(tmp_path, *words), np.array([[0, 0]])).state() is None


REFUSED = {
    "source.settings.algorithm": ["--source.settings.algorithm", "PPP"],
    "n_step; did you mean n_steps?": ["--source.settings.arguments", "{n_step: 3}"],
    "PPO has no policy Mlp": ["--source.settings.policy", "Mlp"],
    "learning_rate": ["--source.settings.arguments", "{learning_rate: fast}"],
    "takes no argument seed": ["--source.settings.arguments", "{seed: 3}"],
    "activation_fn": ["--source.settings.arguments", "{policy_kwargs: {activation_fn: tan}}"],
    "OneHotCells": [
        *("--source.settings.arguments", "{policy_kwargs: {features_extractor_class: OneHotCells}}")
    ],
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_learn_is_refused_in_a_sentence_before_anything_runs(tmp_path, capsys, reason):
    words = ["--config_path", str(SMOKE), "--root", str(tmp_path), *SB3, *REFUSED[reason]]
    assert exit_code(VERBS["collect"], words) == 2
    (sentence,) = capsys.readouterr().err.strip().splitlines()
    assert reason in sentence and "source.settings" in sentence
    assert not list(tmp_path.iterdir())


def test_without_the_extra_a_sentence_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("envs.extras.find_spec", lambda name: None)
    words = ["--config_path", str(SMOKE), "--root", str(tmp_path), *SB3]
    assert exit_code(VERBS["collect"], words) == 2
    (sentence,) = capsys.readouterr().err.strip().splitlines()
    assert sentence.endswith(
        "needs a package that is not installed (stable_baselines3, sb3_contrib): "
        'pip install "algorithm-distillation[sb3]"'
    )


def test_an_agent_whose_policy_is_not_finite_ends_the_collection_in_a_sentence(smoke, tmp_path):
    source = new_source(smoke(tmp_path, *PPO_WORDS), np.array([[0, 0]]))
    torch.nn.init.constant_(source.agents[0].model.policy.action_net.bias, np.nan)
    with pytest.raises(NumericError, match="PPO failed after 0 env steps: its policy is not finit"):
        next(source.run(100))


def test_an_error_of_the_function_reaches_its_caller_and_a_closed_one_ends():
    def fails(ask):
        ask(1)
        raise ValueError("no more")

    rng_swap = RNGSwap()
    thread = SteppedThread(fails, get_generators(), rng_swap)
    assert thread.start() == 1
    with pytest.raises(ValueError, match="no more"):
        thread.advance(2)
    waiting = SteppedThread(fails, get_generators(), rng_swap)
    waiting.start()
    rng_swap.leave()
    waiting.close()
    assert not waiting._thread.is_alive()


def test_a_policy_can_read_cells_and_words_as_one_hot_vectors(tmp_path):
    part = Array((7, 7, 3), "uint8", 0.0, 10.0)
    words, size = Array((2,), "uint8", 0.0, float(len(WORDS))), len(WORDS) + 1
    settings = SB3Settings(
        arguments={"policy_kwargs": {"features_extractor_class": "OneHotCells", "net_arch": []}}
    )
    env = Spaces(4, {"image": part, "mission": words, "direction": Discrete(4, (4,))}, 3)
    policy = make_policy(settings, env)
    cells = np.random.default_rng(0).integers([11, 6, 3], size=(4, 7, 7, 3)).astype(np.uint8)
    mission, direction = np.array([[0, 1], [2, 3], [size - 1, 0], [5, 5]]), np.arange(4)
    seen = env.observation({"image": cells, "mission": mission, "direction": direction})
    with torch.no_grad():
        features = policy.extract_features(policy.obs_to_tensor(seen)[0]).numpy()
    expected = [one_hot(cells).reshape(4, -1), np.eye(size)[mission].reshape(4, -1), np.eye(4)]
    np.testing.assert_array_equal(features, np.concatenate(expected, axis=1))
    path = tmp_path / "checkpoint.zip"
    path.write_bytes(checkpoint(settings, policy))
    loaded = load_policy(path, env)
    assert type(loaded.features_extractor) is type(policy.features_extractor)
