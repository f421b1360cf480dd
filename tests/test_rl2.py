"""RL²: trials, the recurrent policy in a rollout, exact resume, all verbs, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch

from ad import pipeline
from ad.cli import VERBS, exit_code
from ad.config.parser import load
from ad.config.schema import EnvConfig, Experiment, MethodConfig
from ad.data.spec import make_spec
from ad.errors import ConfigError, NumericError
from ad.evaluation.evaluate import evaluate
from ad.methods import build_method
from ad.methods.rl2 import ARGUMENTS
from ad.methods.rl2_learner import TrialLearner
from ad.methods.rl2_policy import RecurrentModel, TrialPolicy
from ad.methods.rl2_trials import Trials
from ad.reporting.verify import verify
from ad.runtime.run import Run
from ad.sources.sb3.settings import SB3Settings
from ad.training import checkpoints
from ad.training.loop import new_trainer
from ad.training.loop import train as train_loop
from ad.training.validation import validate
from envs import make_base

TINY = {
    "env_steps": 160,
    "num_envs": 4,
    "trial_steps": 10,
    "arguments": {
        "learning_rate": 3e-4,
        "batch_size": 20,
        "n_epochs": 1,
        "policy_kwargs": {"lstm_hidden_size": 8, "net_arch": []},
    },
}
STEPS = 4  # train steps of TINY
ROOM = {"size": 3, "terminate": False}


def words(**changes) -> list[str]:
    """Return the options of a tiny training; `changes` are settings of the method."""
    settings = json.dumps(TINY | changes)
    return ["--method.name", "rl2", "--method.settings", settings, "--training.log_every", "1"]


@pytest.fixture(scope="module")
def whole(smoke, tmp_path_factory) -> Run:
    """A run of all verbs; tests only read it."""
    config = smoke(tmp_path_factory.mktemp("rl2"), *words(), "--training.checkpoint_every", "2")
    run = Run.open(config)
    pipeline.run_all([run])
    return run


@pytest.fixture
def copied(whole, tmp_path) -> Run:
    """A copy of the run `whole`, which tests may damage."""
    shutil.copytree(whole.folder, tmp_path / "logs" / whole.folder.name)
    return Run(load([*_options(tmp_path), "--training.checkpoint_every", "2"]))


def _options(root) -> list[str]:
    fixed = ["--config_path", "configs/smoke.yaml", "--root", str(root), "--device", "cpu"]
    return [*fixed, "--threads", "1", *words()]


def train(run: Run) -> dict:
    """Train from the newest checkpoint and return the last one."""
    train_loop(new_trainer(run), validate)
    run.log.close()
    return checkpoints.load(checkpoints.newest(run.folder / "checkpoints"))


def policy(num_envs: int, seed: int = 0) -> TrialPolicy:
    """Return the policy of an untrained model for `num_envs` rooms of 3 x 3 cells."""
    torch.manual_seed(seed)
    world, method = make_base("DarkRoom-v0", **ROOM), build_method(MethodConfig("rl2", TINY))
    model = method.build(make_spec(world, 4, np.zeros(0)), None)
    return method.policy(model, num_envs, 5, method.PolicySettings())


def trials(num_envs: int = 4, steps: int = 8, terminate: bool = False) -> Trials:
    """Return trials in rooms of 3 x 3 cells with episodes of four steps."""
    env = EnvConfig(kwargs=ROOM | {"terminate": terminate}, episode_length=4)
    return Trials(env, make_base(env.id, **ROOM).all_tasks(), num_envs, steps, 1)


def learner() -> TrialLearner:
    """Return a learner in rooms of 3 x 3 cells whose update changes nothing."""
    own = TINY["arguments"] | {"n_steps": 40, "learning_rate": 0.0}
    env = EnvConfig(kwargs={"size": 3}, episode_length=4)
    tasks = make_base(env.id, size=3).all_tasks()
    return TrialLearner(SB3Settings("RecurrentPPO", arguments=own), 4, env, tasks, 160, 0)


def test_all_verbs_run_without_histories(whole):
    names = {"table.md", "report.html", "trajectories.npz", "config.yaml"}
    assert names < {path.name for path in whole.folder.iterdir()}
    assert not (whole.folder.parents[1] / "histories").exists()
    results = json.loads((whole.folder / "results.json").read_text())
    assert results["transitions"] == TINY["env_steps"]
    assert "source" not in results["references"] and "random" in results["references"]
    verify(whole)
    lines = [json.loads(line) for line in (whole.folder / "metrics.jsonl").open()]
    assert [line["step"] for line in lines if "train/trial_return" in line] == [1, 2, 3, 4]


def test_a_collection_and_a_release_have_nothing_to_do(tmp_path, whole):
    assert exit_code(VERBS["collect"], _options(tmp_path)) == 0
    assert (tmp_path / "logs" / "smoke" / "split.json").exists()
    options = [*_options(whole.config.root), "--training.checkpoint_every", "2"]
    assert exit_code(VERBS["release"], options) == 2


@pytest.mark.parametrize("left", [1, 0])
def test_an_interrupted_training_resumes_with_the_same_bits(whole, copied, left):
    expected = checkpoints.load(checkpoints.newest(whole.folder / "checkpoints"))
    for path in sorted((copied.folder / "checkpoints").glob("step_*.pt"))[left:]:
        path.unlink()
        path.with_suffix(".json").unlink()
    resumed = train(copied)
    assert resumed["step"] == STEPS
    for name in ("model", "optimizer", "metrics"):
        torch.testing.assert_close(resumed[name], expected[name], rtol=0, atol=0)


def test_a_policy_that_is_not_finite_ends_the_training_in_a_sentence(smoke, tmp_path):
    run = Run.open(smoke(tmp_path, *words()))
    trainer = new_trainer(run)
    torch.nn.init.constant_(trainer.model.policy.action_net.bias, np.nan)
    with pytest.raises(NumericError, match="failed after 0 env steps: its policy is not finite"):
        train_loop(trainer, validate)
    run.log.close()


def test_training_leaves_the_random_generators_of_the_process_as_they_were(smoke, tmp_path):
    trainer = new_trainer(Run.open(smoke(tmp_path, *words())))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trainer.train_step()
    assert torch.equal(torch.rand(3), expected)


def test_an_argument_replaces_its_tuned_value_and_no_other():
    config = Experiment(env=EnvConfig(kwargs=ROOM, episode_length=4))
    tasks, settings = make_base("DarkRoom-v0", **ROOM).all_tasks(), {"num_envs": 4}
    tuned, changed = (
        build_method(MethodConfig("rl2", settings | {"arguments": own}))
        .learner(config, tasks)
        .algorithm
        for own in ({}, {"gamma": 0.5})
    )
    assert (tuned.gamma, changed.gamma) == (ARGUMENTS["gamma"], 0.5)
    for algorithm in (tuned, changed):
        assert algorithm.gae_lambda == ARGUMENTS["gae_lambda"]
        assert algorithm.policy.shared_lstm
        assert algorithm.policy.lstm_actor.hidden_size == 64
        assert algorithm.policy.optimizer.param_groups[0]["lr"] == 3e-3


def test_the_input_has_the_previous_action_reward_and_end_of_the_episode():
    env = trials()
    first = env.reset()
    np.testing.assert_array_equal(first["previous_action"], [5] * 4)  # none
    assert not first["previous_reward"].any() and not first["episode_ended"].any()
    tasks, ended = env.worlds[0].unwrapped.tasks, []
    for step in range(8):
        env.step_async(np.arange(4))
        inputs, reward, done, _ = env.step_wait()
        np.testing.assert_array_equal(inputs["previous_action"], np.arange(4))
        np.testing.assert_array_equal(inputs["previous_reward"][:, 0], reward)
        ended.append(inputs["episode_ended"].tolist())
        assert done.tolist() == [step == 7] * 4
        np.testing.assert_array_equal(env.worlds[0].unwrapped.tasks, tasks)
    assert ended == [[int(step % 4 == 3)] * 4 for step in range(8)]


def test_every_trial_has_the_same_number_of_episodes_and_begins_anew():
    env = trials(steps=40, terminate=True)
    env.begin(0)
    ends, played, tasks = np.zeros(4, int), [], [env.worlds[0].unwrapped.tasks]
    for step in range(39):
        env.step_async(np.random.default_rng(step).integers(5, size=4))
        inputs, _, over, infos = env.step_wait()
        ends += inputs["episode_ended"] | over
        played += ends[over].tolist()
        ends[over] = 0
        np.testing.assert_array_equal(inputs["previous_action"][over], 5)  # none
        assert not any(infos)
    assert len(played) > 1 and set(played) == {10}
    assert len(env.returns) == len(played) and max(env.returns) <= 10
    assert (env.worlds[1].unwrapped.tasks != tasks[0]).any()


def test_a_trial_does_not_depend_on_the_environments_beside_it():
    def played(num_envs: int) -> list[dict]:
        env = trials(num_envs, steps=40, terminate=True)
        inputs = [{name: values[:2].copy() for name, values in env.begin(3).items()}]
        for step in range(40):
            u = np.random.default_rng(step).integers(5, size=7)
            env.step_async(u[:num_envs])
            inputs.append({name: values[:2].copy() for name, values in env.step_wait()[0].items()})
        assert env.trial[:2].any()
        return inputs

    for one, other in zip(played(2), played(7), strict=True):
        for name, values in one.items():
            np.testing.assert_array_equal(values, other[name])


def test_whole_sequences_give_the_values_of_single_steps():
    trainer = learner()
    algorithm = trainer.algorithm
    trainer.train_step(0)
    buffer = algorithm.rollout_buffer
    for batch in buffer.get(buffer.buffer_size * buffer.n_envs):
        with torch.no_grad():
            values, log_prob, _ = algorithm.policy.evaluate_actions(
                batch.observations, batch.actions.long().flatten(), *batch[-3:-1]
            )
        valid = batch.mask > 0
        assert valid.sum() == 4 * 40
        torch.testing.assert_close(values.flatten()[valid], batch.old_values[valid])
        torch.testing.assert_close(log_prob[valid], batch.old_log_prob[valid])


def test_a_trial_is_bootstrapped_at_its_end_from_what_would_follow():
    env = trials(steps=3)
    env.reset()
    for _ in range(3):
        env.step_async(np.zeros(4, int))
        inputs, _, _, infos = env.step_wait()
    for n, info in enumerate(infos):
        assert info["TimeLimit.truncated"]
        assert info["terminal_observation"]["observation"] == inputs["observation"][n]


def test_the_tasks_of_trials_are_drawn_by_their_number_and_environment():
    env, few = trials(num_envs=300), trials(num_envs=3)
    env.begin(2), few.begin(2)
    drawn = env.worlds[0].unwrapped.tasks
    np.testing.assert_array_equal(few.worlds[0].unwrapped.tasks, drawn[:3])
    assert len(np.unique(drawn, axis=0)) == len(env.tasks)
    env.begin(3)
    assert (env.worlds[0].unwrapped.tasks != drawn).any()


def outcomes(policy: TrialPolicy, steps: int, seed: int = 0):
    """Feed random transitions to a policy; yields its logits [N, A] before each."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        n = len(policy.reward_seen)
        cell, action, reward, ended = (torch.from_numpy(rng.integers(2, size=n)) for _ in range(4))
        yield policy.act(cell, torch.zeros(n, dtype=torch.int64))
        policy.observe(action, reward.float(), ended > 0, ended < 0, cell)


def test_the_recurrent_state_is_reset_by_nothing_but_a_new_rollout():
    played = policy(4)
    first, *_, last = list(outcomes(played, 20))
    again = next(outcomes(TrialPolicy(_model(played), 4), 1))
    assert torch.equal(first, again) and not torch.equal(last, first)
    state = played.player.memory.copy()
    one = torch.ones(4, dtype=torch.bool)
    played.observe(torch.zeros(4, dtype=int), torch.zeros(4), one, ~one, torch.zeros(4, dtype=int))
    np.testing.assert_array_equal(played.player.memory, state)


def _model(played: TrialPolicy) -> RecurrentModel:
    spec = make_spec(make_base("DarkRoom-v0", **ROOM), 4, np.zeros(0))
    return RecurrentModel(spec, played.player.policy)


@pytest.mark.parametrize("what", ["action", "reward", "terminated", "truncated"])
def test_the_next_logits_depend_on_every_outcome(what):
    changed, logits = {"action": 1, "reward": 1.0, "terminated": True, "truncated": True}, []
    for outcome in ({}, {what: changed[what]}):
        played, cell = policy(1), torch.zeros(1, dtype=torch.int64)
        played.act(cell, cell)
        values = {"action": 0, "reward": 0.0, "terminated": False, "truncated": False} | outcome
        played.observe(*(torch.tensor([value]) for value in values.values()), cell)
        logits.append(played.act(cell, cell))
    assert not torch.equal(*logits)


def test_selected_environments_go_on_as_they_would_and_may_repeat():
    whole, part = policy(4), policy(4)
    for one, other in zip(outcomes(whole, 5), outcomes(part, 5), strict=True):
        assert torch.equal(one, other)
    kept = torch.tensor([3, 1, 1])
    part.select(kept)
    cell = torch.arange(4)
    expected = whole.act(cell, cell)[kept]
    torch.testing.assert_close(part.act(cell[kept], cell[kept]), expected)
    assert torch.equal(part.reward_in_context(), whole.reward_in_context()[kept])


REFUSED = {
    r"method\.settings\.env_steps": words(env_steps=100),
    r"method\.settings\.trial_steps": words(trial_steps=4, env_steps=16),
    r"method\.settings\.arguments .*n_steps": words(arguments={"n_steps": 3}),
    r"method\.settings\.arguments .*gama": words(arguments={"gama": 3}),
    r"method\.name .*cannot be rl2 with": [
        *("--env.id", "tests/worlds.py:Bandit", "--env.kwargs", "{}"),
        *words(),
    ],
    r"evaluation\.worlds .*must not list .*": [
        *words(),
        *("--evaluation.worlds", "[{size: 5}]"),
    ],
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_learn_is_refused_before_anything_runs(smoke, tmp_path, reason):
    with pytest.raises(ConfigError, match=reason):
        smoke(tmp_path, *REFUSED[reason])
    assert not list(tmp_path.iterdir())


def test_a_world_that_no_source_can_learn_is_no_obstacle(smoke, tmp_path):
    ring = ["--env.id", "tests/worlds.py:Silent", "--env.kwargs", "{parts: true}"]
    config = smoke(tmp_path, *ring, "--split.num_train_tasks", "3", *words())
    assert train(Run.open(config))["step"] == STEPS


@pytest.mark.slow
def test_it_learns_to_search_for_the_best_arm(tmp_path):
    settings = {"env_steps": 1_000_000, "num_envs": 100, "trial_steps": 100}
    config = load(
        [
            *("--config_path", "configs/bandit.yaml", "--root", str(tmp_path), "--threads", "1"),
            *("--method.name", "rl2", "--method.settings", json.dumps(settings)),
            *("--evaluation.temperature", "1", "--training.eval_every", "1000"),
        ]
    )
    run = Run.open(config)
    train(run)
    evaluate(run)
    results = json.loads((run.folder / "results.json").read_text())
    scores = results["splits"]["held_out"]
    low, high = scores["ci95"]["normalized_return_last10"]
    print(f"{scores['normalized_return_last10']:.3f} [{low:.3f}, {high:.3f}]")
    assert low > 0  # as uniformly random pulls have
