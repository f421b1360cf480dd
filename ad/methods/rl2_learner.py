"""RecurrentPPO of sb3-contrib on trials, a train step at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import set_random_seed

from ad.config.schema import EnvConfig
from ad.config.world import configured_world
from ad.data.spec import make_spec
from ad.methods.rl2_policy import RecurrentModel
from ad.methods.rl2_trials import Trials
from ad.sources.sb3.agent import COUNTS, failure
from ad.sources.sb3.policies import make_algorithm
from ad.sources.sb3.settings import SB3Settings
from ad.sources.sb3.stepped_thread import get_generators, set_generators
from envs.rng import derive_key

LOGGED = ("loss", "policy_gradient_loss", "value_loss", "entropy_loss", "approx_kl")


class TrialLearner:
    """A recurrent policy and the trials on which RecurrentPPO trains it (`Learner`).

    A train step is an iteration of the library's `learn`: a trial or more in each of `num_envs`
    environments, then the update. Nothing of a trial outlives its train step. `env_steps` is the
    budget, over which the library's schedules run; what is drawn depends on `key` and the step.
    """

    def __init__(
        self,
        settings: SB3Settings,
        num_envs: int,
        env: EnvConfig,
        tasks: np.ndarray,
        env_steps: int,
        key: int,
    ):
        self.settings, self.env_steps, self.key = settings, env_steps, key
        self.trials = Trials(env, tasks, num_envs, settings.arguments["n_steps"], key)
        # The rewards of the world are not listed.
        spec = make_spec(configured_world(env), env.episode_length, np.zeros(0))
        with self._generators("agent"):
            self.algorithm = make_algorithm(settings, self.trials, derive_key(key, "agent") % 2**31)
            self.algorithm.set_logger(Logger(None, []))
            _, self.callback = self.algorithm._setup_learn(env_steps, None)
        policy = self.algorithm.policy
        policy._process_sequence = partial(_process_sequences, policy._process_sequence)
        self.model = RecurrentModel(spec, policy)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last train step."""
        return self.algorithm.policy.optimizer.param_groups[0]["lr"]

    def train_step(self, step: int) -> dict[str, float]:
        """Play trials in each environment and update; return numbers for the log by name.

        Raises NumericError if the policy is not finite any more, ConfigError for another failure of
        the library.
        """
        algorithm, trials = self.algorithm, self.trials
        with self._generators("step", step):
            try:
                self._begin(step)
                algorithm.collect_rollouts(
                    trials, self.callback, algorithm.rollout_buffer, algorithm.n_steps
                )
                algorithm._update_current_progress_remaining(
                    algorithm.num_timesteps, self.env_steps
                )
                algorithm.train()
            except Exception as error:  # the library's, for settings or values it cannot use
                raise failure(self.settings, algorithm, error) from error
        logged = algorithm.logger.name_to_value
        losses = {name: float(logged[f"train/{name}"]) for name in LOGGED}
        return {"trial_return": float(np.mean(trials.returns)), **losses}

    def state(self) -> dict:
        """Return the optimizer's state and the library's counts."""
        counts = {name: getattr(self.algorithm, name) for name in COUNTS}
        return {"optimizer": self.algorithm.policy.optimizer.state_dict(), "counts": counts}

    def load_state(self, state: dict) -> None:
        """Set the state to one returned by `state`."""
        self.algorithm.policy.optimizer.load_state_dict(state["optimizer"])
        for name, value in state["counts"].items():
            setattr(self.algorithm, name, value)

    def _begin(self, step: int) -> None:
        """Begin the trials of a train step, with the recurrent state of a trial's start."""
        algorithm = self.algorithm
        algorithm._last_obs = self.trials.begin(step)
        algorithm._last_episode_starts = np.ones(self.trials.num_envs, bool)
        algorithm._last_lstm_states = RNNStates(
            *(tuple(map(torch.zeros_like, own)) for own in algorithm._last_lstm_states)
        )

    @contextmanager
    def _generators(self, *purpose: str | int) -> Iterator[None]:
        """Seed the process's random generators, from which the library draws, for the block."""
        outside = get_generators()
        try:
            set_random_seed(derive_key(self.key, *purpose) % 2**32)
            yield
        finally:
            set_generators(outside)


def _process_sequences(process, features, states, starts, lstm):
    """Call the library's `process` of sequences, of which only the first step can begin a trial.

    The state there is set to zero here and `process` gets no beginning: it then runs the
    recurrent layer over whole sequences at once, eight times as fast as step by step.
    """
    begins = starts.reshape(states[0].shape[1], -1)[:, 0]
    kept = (1 - begins)[None, :, None]
    return process(features, tuple(state * kept for state in states), starts * 0, lstm)
