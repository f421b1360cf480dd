"""Components that nothing in the project knows: tests name them by this file and their class."""

from dataclasses import dataclass

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from ad.config.fields import field
from ad.methods.algorithm_distillation import AlgorithmDistillation
from ad.methods.base import Method
from ad.methods.context_policy import ContextPolicy
from ad.methods.contexts import SlidingWindow
from ad.models.memories.base import Cache, Memory
from ad.models.sequence_model import SequenceModel
from ad.sources.actors import Actors
from ad.sources.base import Source
from envs.world import World


class PictureRoom(gymnasium.Env):
    """A 5 x 5 room seen from above, and whether the last move met a wall; a task is the goal."""

    observation_space = spaces.Dict(
        {"image": spaces.Box(0, 255, (5, 5, 3), np.uint8), "bumped": spaces.Discrete(2)}
    )
    action_space = spaces.Discrete(4)
    moves = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])

    def __init__(self, goal: int = 0, render_mode=None):
        self.goal = np.array(divmod(goal, 5))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cell = self.np_random.integers(5, size=2)
        return self.observation(False), {}

    def step(self, action):
        wanted = self.cell + self.moves[action]
        self.cell = wanted.clip(0, 4)
        found = bool((self.cell == self.goal).all())
        return self.observation((wanted != self.cell).any()), float(found), found, False, {}

    def observation(self, bumped) -> dict:
        image = np.zeros((5, 5, 3), np.uint8)
        image[tuple(self.cell)] = [255, 40, 0]
        return {"image": image, "bumped": int(bumped)}


class Dtypes(gymnasium.Env):
    """Parts of dtypes that torch lacks or does not calculate in."""

    observation_space = spaces.Dict(
        {
            "wide": spaces.Box(0, 65_535, (2,), np.uint16),
            "double": spaces.Box(-np.inf, np.inf, (), np.float64),
            "flag": spaces.MultiBinary(3),
        }
    )
    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.step(0)[0], {}

    def step(self, action):
        wide = np.array([65_535, action], np.uint16)
        flag = np.eye(3, dtype=np.int8)[action]
        observation = {"wide": wide, "double": np.array(0.1), "flag": flag}
        return observation, 0.5 * int(action), False, False, {}


class Dashed(Dtypes):
    """A space with a key that could be taken for the way to a nested part."""

    observation_space = spaces.Dict({"a-b": spaces.Discrete(3)})


class Halves(gymnasium.Env):
    """An environment whose second observation is a number that its space does not have."""

    observation_space, action_space = spaces.Discrete(4), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        return 1.5, 0.0, False, False, {}


class Liar(World):
    """A world that returns an observation outside its space."""

    def __init__(self, num_envs=None, tasks=None):
        super().__init__(num_envs, tasks, spaces.Discrete(4), spaces.Discrete(2))

    def all_tasks(self):
        return np.arange(5)[:, None]

    def _advance(self, actions, envs):
        return np.zeros(len(actions)), np.zeros(len(actions), bool)

    def _observation(self):
        return np.full(self.num_envs, 65_538)


class Late(Liar):
    """A world that leaves its space at the third step."""

    steps = 0

    def _observation(self):
        self.steps += 1
        return np.full(self.num_envs, 5 if self.steps > 3 else 0)


class Wordless(World):
    """A world that can neither be stepped nor observed."""

    def all_tasks(self):
        return np.arange(3)[:, None]


class Amnesia(Memory):
    """A memory that reads nothing and keeps nothing."""


@dataclass(frozen=True)
class SearchSettings:
    """Settings of the random search."""

    scale: float = field(0.5, above=0)
    """standard deviation of a change of the weights"""


class RandomSearch(Source):
    """Hill climbing on linear policies: a change of the weights that does not harm is kept.

    A step of the search is a rollout of 20 env steps.
    """

    Settings = SearchSettings

    def __init__(self, settings, env, tasks, num_envs, keys):
        self.actors, self.scale = Actors(env, len(tasks), num_envs, keys), settings.scale
        self.num_actions = int(env.single_action_space.n)
        self.rngs = [np.random.default_rng(key) for key in keys]
        self.best, self.score = None, np.full(len(tasks), -np.inf)

    def run(self, steps):
        for chunk in self.actors.chunks(steps, 20):
            for part in chunk.rollouts(20):
                self.weights = None
                self.actors.fill(part, self.act)
                score = part.arrays["reward"].mean((0, 2))
                better = score >= self.score
                self.best = np.where(better[:, None, None], self.weights, self.best)
                self.score = np.where(better, score, self.score)
            chunk.statistics["score"] = [self.score]
            yield chunk

    def act(self, observations, u):
        parts = observations if isinstance(observations, dict) else {"": observations}
        flat = [np.reshape(part, (*u.shape, -1)) / 255.0 for part in parts.values()]
        features = np.concatenate([*flat, np.ones((*u.shape, 1))], axis=-1)  # [K, N, F]
        if self.weights is None:
            shape = features.shape[-1], self.num_actions
            change = np.stack([rng.standard_normal(shape) for rng in self.rngs]) * self.scale
            self.weights = change if self.best is None else self.best + change
        return (features @ self.weights).argmax(-1)


class Uniform(Source):
    """Uniformly random actions: a source that learns nothing and has no settings."""

    @dataclass(frozen=True)
    class Settings:
        """This source has no settings."""

    def __init__(self, settings, env, tasks, num_envs, keys):
        self.actors = Actors(env, len(tasks), num_envs, keys)

    def run(self, steps):
        for chunk in self.actors.chunks(steps):
            self.actors.fill(chunk, lambda observations, u: self.actors.uniform_actions(u))
            yield chunk


class Lazy(Uniform):
    """A source that ends too early."""

    def run(self, steps):
        return super().run(60)


class ValueModel(SequenceModel):
    """A sequence model with a value head, and a slow copy of it, the target network."""

    def __init__(self, *args):
        super().__init__(*args)
        self.value, self.target = (nn.Linear(self.head.in_features, 1) for _ in range(2))
        self.target.load_state_dict(self.value.state_dict())
        self.target.requires_grad_(False)


class Critic(AlgorithmDistillation):
    """Algorithm distillation beside temporal-difference learning of a value (Sutton 1988)."""

    def build(self, spec, config):
        return ValueModel(spec, config)

    def loss(self, model, batch):
        loss, _ = super().loss(model, batch)
        hidden = model.hidden(batch)
        values, valid = model.value(hidden)[..., 0].float(), batch["valid"][:, 1:]
        following = torch.roll(model.target(hidden)[..., 0].float(), -1, 1)
        both = (
            valid
            & torch.roll(valid, -1, 1)
            & (torch.arange(valid.shape[1], device=valid.device) > 0)
        )
        error = (values - batch["reward"][:, 1:] - 0.9 * following.detach()) ** 2
        value_loss = error.where(both, 0).sum() / valid.sum()
        return loss + value_loss, {"actor_loss": loss, "value_loss": value_loss}

    def after_step(self, model, metrics):
        for slow, fast in zip(model.target.parameters(), model.value.parameters(), strict=True):
            slow.lerp_(fast, 0.1)


class TargetPolicy(ContextPolicy):
    """A policy that is asked for a return in each episode, and counts what is left of it."""

    def __init__(self, model, context, target_return: float):
        super().__init__(model, context)
        self.target_return = target_return
        self.left = torch.full((len(context.fields["valid"]),), target_return, device=self.device)

    def inputs(self):
        return {"return_to_go": self.left}

    def observe(self, action, reward, terminated, truncated, next_observation):
        super().observe(action, reward, terminated, truncated, next_observation)
        self.left = torch.where(terminated | truncated, self.target_return, self.left - reward)

    def select(self, envs):
        super().select(envs)
        self.left = self.left[envs]


class ReturnConditioned(AlgorithmDistillation):
    """Actions given the return that follows (Chen et al. 2021), in windows over episodes."""

    fields = (*Method.fields, "return_to_go")

    @dataclass(frozen=True)
    class PolicySettings:
        """Settings of a policy that is conditioned on a return."""

        target_return: float = field(1.0)
        """return that each episode is conditioned on"""

    def build(self, spec, config):
        inputs = {"return_to_go": nn.Linear(1, config.width)}
        return SequenceModel(spec, config, inputs)

    def policy(self, model, num_envs, context_length, settings):
        context = SlidingWindow(model, num_envs, context_length)
        return TargetPolicy(model, context, settings.target_return)


class Totals(Cache):
    """What is kept: the total of the tokens read, [N, 1, C]."""

    total = 0.0

    def reset(self):
        super().reset()
        self.total = 0.0

    def select(self, envs):
        self.total = self.total[envs]


class Averages(Memory):
    """A memory whose hidden states are a linear map of the mean of the tokens so far."""

    def __init__(self, config, *tokens):
        super().__init__(config, *tokens)
        self.linear = nn.Linear(config.width, config.width)

    def forward(self, tokens, cache=None):
        before = Totals() if cache is None else cache
        totals = before.total + tokens.cumsum(1)
        number = before.length + torch.arange(1, tokens.shape[1] + 1)
        before.total = totals[:, -1:]
        before.advance(tokens.shape[1])
        return self.linear(totals / number[:, None])

    def new_cache(self, num_envs, capacity):
        return Totals()


class Forgetful(ReturnConditioned):
    """A method whose model reads a return to go that its policy does not give."""

    policy = Method.policy


class Lossless(Method):
    """A method without a loss."""


class TimeLeft(AlgorithmDistillation):
    """A method with a field of its own: the number of transitions left in the sequence."""

    fields = (*Method.fields, "time_left")
    derived = {  # noqa: RUF012
        "time_left": lambda sequences: np.concatenate(
            [np.arange(length)[::-1] for length in sequences.lengths]
        )
    }


class Supervised(AlgorithmDistillation):
    """Optimal actions as targets (Lee et al. 2023), where the world knows them."""

    fields = (*Method.fields, "optimal_action")

    def loss(self, model, batch):
        logits, targets = model(batch), batch["optimal_action"][:, 1:]
        losses = nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
        valid = batch["valid"][:, 1:]
        return losses.where(valid, 0).sum() / valid.sum(), {}


class Unknowing(AlgorithmDistillation):
    """A method that asks for a field that nothing computes."""

    fields = (*Method.fields, "surprise")


class Fitting(Method):
    """A method whose only member is a loss."""

    def loss(self, model, batch):
        return AlgorithmDistillation(AlgorithmDistillation.Settings()).loss(model, batch)
