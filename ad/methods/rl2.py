"""RL² (Duan et al. 2016, arXiv 1611.02779; Wang et al. 2016, arXiv 1611.05763): learn online.

A recurrent policy is trained by reinforcement learning on whole trials, episodes in one task whose
ends do not reset its state, so that it learns to learn in the task. It reads the previous action
and reward and the end of the episode in addition to the observation (`ad.methods.rl2_trials`). The
algorithm is RecurrentPPO of sb3-contrib (extra sb3), on the CPU; the papers have TRPO and A2C.

A train step takes `trial_steps` env steps in each of `num_envs` environments, a trial or more with
a task drawn for each from the train tasks, and updates on all of them. A trial has as many episodes
as fit into `trial_steps` at their full length, so that no task has more of them than another. Of
the section `training` only the seed and the intervals of log, evaluation and checkpoints are used;
the sections `source`, `data` and `model` are not.
"""

from dataclasses import dataclass

from ad.config.fields import field
from ad.errors import SettingError
from ad.methods.base import Method, unfit
from ad.sources.sb3.settings import SB3Settings, check_packages
from envs.rng import derive_key
from envs.spaces import observation_parts

# On train tasks of the tuning split of five-armed bandits these learn faster than a learning rate
# of 1e-3, a discount of 0.99 and a lambda of 0.95.
ARGUMENTS = {
    "learning_rate": "lin_3e-3",
    "batch_size": 2500,
    "n_epochs": 4,
    "gamma": 0.97,
    "gae_lambda": 0.9,
    "ent_coef": 0.01,
    "policy_kwargs": {
        "lstm_hidden_size": 64,
        "net_arch": [],
        "shared_lstm": True,
        "enable_critic_lstm": False,
    },
}


@dataclass(frozen=True)
class Settings:
    """Settings of RL²: its budget, its trials, and RecurrentPPO."""

    env_steps: int = field(6_000_000, at_least=1)
    """budget: env steps of the whole training, over all train tasks and environments"""
    num_envs: int = field(100, at_least=1)
    """environments that play trials at the same time"""
    trial_steps: int = field(200, at_least=2)
    """env steps in each environment of a train step, and in a trial whose episodes end by time"""
    arguments: dict = field({})
    """keyword arguments of RecurrentPPO of sb3-contrib that replace the tuned ones of
    ad/methods/rl2.py one by one, e.g. {learning_rate: lin_1e-3}; policy_kwargs as a whole"""


class RL2(Method):
    """A recurrent policy that RecurrentPPO trains on trials in the train tasks."""

    Settings = Settings
    any_size = False
    reads_histories = False

    def check(self, config, world):
        """Raise SettingError unless all tasks have the same actions and the settings fit."""
        settings, length = self.settings, config.env.episode_length
        mask = world.action_mask(world.all_tasks())
        if mask is not None and not mask.all():
            raise unfit(config, "it needs a world whose tasks have the same number of actions")
        each = settings.num_envs * settings.trial_steps
        if settings.env_steps % each:
            text = f"must be a multiple of {each}, num_envs * trial_steps, not {settings.env_steps}"
            raise SettingError("method.settings.env_steps", text)
        if settings.trial_steps < length:
            text = f"must be at least env.episode_length ({length}), not {settings.trial_steps}"
            raise SettingError("method.settings.trial_steps", text)
        if "n_steps" in settings.arguments:
            text = "must not have n_steps: method.settings.trial_steps sets it"
            raise SettingError("method.settings.arguments", text)

    def check_libraries(self, config, world):
        """Raise SettingError if a package is missing, or RecurrentPPO refuses an argument."""
        check_packages("method.name")
        from ad.sources.sb3.agent import check_agent

        env = _spaces(self.settings.num_envs, world)
        check_agent(_sb3_settings(self.settings), env, "method.settings.arguments")

    def train_steps(self, config):
        """Return the number of train steps, each of a trial in every environment."""
        return self.settings.env_steps // (self.settings.num_envs * self.settings.trial_steps)

    def transitions(self, config):
        """Return the budget in env steps."""
        return self.settings.env_steps

    def build(self, spec, config):
        """Return an untrained recurrent policy; `config` is not used."""
        from ad.methods.rl2_policy import RecurrentModel
        from ad.methods.rl2_trials import trial_parts
        from ad.sources.sb3.policies import Spaces, make_policy

        env = Spaces(1, trial_parts(spec.observation, spec.num_actions), spec.num_actions)
        return RecurrentModel(spec, make_policy(_sb3_settings(self.settings), env))

    def policy(self, model, num_envs, context_length, settings):
        """Return the policy of a rollout, which is one trial; `context_length` is not used."""
        from ad.methods.rl2_policy import TrialPolicy

        return TrialPolicy(model, num_envs)

    def learner(self, config, tasks):
        """Return RecurrentPPO with the trials of the train tasks."""
        from ad.methods.rl2_learner import TrialLearner

        key = derive_key(config.training.train_seed, "rl2")
        settings = self.settings
        return TrialLearner(
            _sb3_settings(settings), settings.num_envs, config.env, tasks, settings.env_steps, key
        )


def _sb3_settings(settings: Settings) -> SB3Settings:
    """Return RecurrentPPO with the tuned arguments, except the arguments in `settings`."""
    arguments = {**ARGUMENTS, **settings.arguments, "n_steps": settings.trial_steps}
    return SB3Settings("RecurrentPPO", arguments=arguments)


def _spaces(num_envs: int, world):
    """Return environments with the spaces of the trials in `world`."""
    from ad.methods.rl2_trials import trial_parts
    from ad.sources.sb3.policies import Spaces

    num_actions = int(world.single_action_space.n)
    return Spaces(num_envs, trial_parts(observation_parts(world), num_actions), num_actions)
