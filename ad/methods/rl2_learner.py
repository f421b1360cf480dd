"""Proximal policy optimization on trials, a train step at a time."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from ad.config.schema import Experiment, ModelConfig
from ad.config.world import configured_world, make_envs, task_changes
from ad.data.spec import Spec, make_spec
from ad.errors import NumericError
from ad.methods import build_model
from ad.methods.context_policy import ContextPolicy
from ad.methods.contexts import SlidingWindow
from ad.methods.losses import masked_mean
from ad.methods.policy import as_tensor, observation_tensors
from ad.methods.rl2 import RL2
from ad.models.sequence_model import SequenceModel
from ad.models.tokenizer import Window
from envs.rng import derive_key, uniform
from envs.spaces import split_observation

PART = 32  # trials that are read at once in an update


class ActorCritic(SequenceModel):
    """A sequence model that also predicts the discounted reward of the rest of a trial."""

    def __init__(self, spec: Spec, config: ModelConfig):
        super().__init__(spec, config)
        self.value_head = nn.Linear(config.width, 1)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    def values(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the values [...] of hidden states [..., C]."""
        return self.value_head(hidden)[..., 0]


class Trials(NamedTuple):
    """Trials of N environments: what was read, done and expected at each of T decisions.

    window: the fields of all transitions, [N, T + 1, ...]; those of the trial itself are `valid`.
    log_probs: those of the actions taken, [N, T]. values: those predicted at each decision, [N, T].
    mask: the actions that each task has, bool [N, 1, A], None for all.
    """

    window: Window
    log_probs: torch.Tensor
    values: torch.Tensor
    mask: torch.Tensor | None

    @property
    def valid(self) -> torch.Tensor:
        """Which decisions belong to the trial, bool [N, T]."""
        return self.window["valid"][:, 1:]

    def select(self, rows: torch.Tensor, ends: slice) -> "Trials":
        """Return the first decisions of some environments."""
        return Trials(
            {name: values[rows, : ends.stop + 1] for name, values in self.window.items()},
            self.log_probs[rows, ends],
            self.values[rows, ends],
            None if self.mask is None else self.mask[rows],
        )


class TrialLearner:
    """A model and the trials on which proximal policy optimization trains it (`Learner`).

    A train step depends on the model, the optimizer's state, `key` and its number. No state of an
    environment outlives it.
    """

    def __init__(
        self, method: RL2, config: Experiment, tasks: np.ndarray, trial_steps: int, key: int
    ):
        self.settings, self.env, self.tasks, self.key = method.settings, config.env, tasks, key
        self.train_steps = method.train_steps(config)
        self.trial_steps, self.episodes = trial_steps, trial_steps // config.env.episode_length
        if config.env.change >= self.episodes:  # no trial would have a change
            self.env = replace(config.env, change=1 / self.episodes)
        # The rewards of the world are not listed.
        spec = make_spec(configured_world(config.env), config.env.episode_length, np.zeros(0))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_key(key, "weights"))
            self.model = build_model(method, spec, config)
        rate = self.learning_rate = self.settings.learning_rate
        self.optimizer = torch.optim.Adam(self.model.parameters(), rate, eps=1e-5, fused=True)
        self.max_norm = config.training.gradient_norm

    def train_step(self, step: int) -> dict[str, float]:
        """Play a trial in each environment and update; return numbers for the log by name.

        Raises NumericError if the model is not finite any more.
        """
        left = 1 - step / self.train_steps
        self.learning_rate = self.settings.learning_rate * left
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_key(self.key, "step", step))
            trials = self.play(step)
            metrics = self.update(trials, self.settings.entropy_weight * left)
        if not np.isfinite(list(metrics.values())).all():
            raise NumericError(f"the losses of train step {step} are not finite: {metrics}")
        returns = (trials.window["reward"][:, 1:] * trials.valid).sum(1)
        return {"trial_return": float(returns.mean()), **metrics}

    @torch.no_grad()
    def play(self, step: int) -> Trials:
        """Return a trial of each environment, in tasks that depend on `step`, by the model.

        An environment whose trial is over plays on until all are.
        """
        length, episodes = self.trial_steps, self.episodes
        env, seeds = self._environments(derive_key(self.key, "trials", step))
        mask = env.unwrapped.action_mask(env.unwrapped.tasks)
        mask = None if mask is None else as_tensor(mask, torch.device("cpu"))[:, None]
        context = SlidingWindow(self.model.eval(), env.num_envs, length)
        policy, space = ContextPolicy(self.model, context), env.single_observation_space

        def tensors(observation):
            return observation_tensors(split_observation(space, observation), policy.device)

        observation, info = env.reset(seed=seeds)
        log_probs, values, valid, ended = [], [], [], np.zeros(env.num_envs, int)
        while len(valid) < length and (ended < episodes).any():
            valid.append(torch.from_numpy(ended < episodes))
            policy.enter(tensors(observation), torch.from_numpy(info["time"]))
            hidden = context.hidden()[:, None]
            log_p = self.log_probs(hidden, mask)[:, 0]
            action = torch.multinomial(log_p.exp(), 1)
            values.append(self.model.values(hidden))
            log_probs.append(log_p.gather(1, action))
            observation, reward, terminated, truncated, info = env.step(action[:, 0].numpy())
            outcome = (torch.from_numpy(np.array(x)) for x in (reward, terminated, truncated))
            final = tensors(info.get("final_obs", observation))
            policy.observe(action[:, 0], *outcome, final)
            ended += terminated | truncated
        env.close()
        window = {name: value[:, : len(valid) + 1] for name, value in context.fields.items()}
        window["valid"] = torch.stack([valid[0] & False, *valid], 1)
        return Trials(window, torch.cat(log_probs, 1), torch.cat(values, 1), mask)

    def update(self, trials: Trials, entropy_weight: float) -> dict[str, float]:
        """Learn from `trials`, several times in minibatches; return means for the log by name."""
        settings, means = self.settings, []
        lengths, advantages = trials.valid.sum(1), self.advantages(trials)
        targets = advantages + trials.values
        known = advantages[trials.valid]
        advantages = (advantages - known.mean()) / (known.std() + 1e-8)
        value_weight = settings.value_weight / (targets[trials.valid].var() + 1e-8)
        for _ in range(settings.epochs):
            for rows in torch.randperm(len(lengths)).chunk(settings.minibatches):
                self.optimizer.zero_grad()
                parts = 0.0
                # The shorter trials are read apart: what is cut off there is not computed.
                for part in rows[lengths[rows].argsort()].split(PART):
                    ends = slice(int(lengths[part].max()))
                    few = trials.select(part, ends)
                    share = few.valid.sum() / lengths[rows].sum()
                    metrics = self.losses(few, advantages[part, ends], targets[part, ends])
                    weights = 1.0, value_weight, -entropy_weight
                    loss = sum(w * x for w, x in zip(weights, metrics.values(), strict=False))
                    (loss * share).backward()
                    parts = parts + share * torch.stack([x.detach() for x in metrics.values()])
                nn.utils.clip_grad_norm_(self.model.parameters(), self.max_norm)
                self.optimizer.step()
                means.append(parts)
        return dict(zip(metrics, torch.stack(means).mean(0).tolist(), strict=True))

    def advantages(self, trials: Trials) -> torch.Tensor:
        """Return the generalized advantages [N, T] of the actions taken; 0 after a trial."""
        settings, valid = self.settings, trials.valid
        next_values = nn.functional.pad((trials.values * valid)[:, 1:], (0, 1))
        deltas = trials.window["reward"][:, 1:] + settings.discount * next_values - trials.values
        found, following = torch.empty_like(deltas), torch.zeros(len(deltas))
        for t in range(deltas.shape[1] - 1, -1, -1):
            following = deltas[:, t] + settings.discount * settings.gae_lambda * following
            following = found[:, t] = following * valid[:, t]
        return found

    def losses(
        self, trials: Trials, advantages: torch.Tensor, targets: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return the losses of policy and values, the entropy and further metrics, 0-d each.

        `advantages` and `targets` of the values are [B, T]. All are means over the decisions of the
        trials.
        """
        window, clip = trials.window, self.settings.clip
        hidden = self.model.hidden(window)
        log_p = self.log_probs(hidden, trials.mask)
        change = log_p.gather(-1, window["action"][:, 1:, None])[..., 0] - trials.log_probs
        ratio = change.exp()
        gain = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
        values = {
            "policy_loss": -gain,
            "value_loss": 0.5 * (self.model.values(hidden) - targets).square(),
            "entropy": -(log_p.exp() * log_p.clamp(min=-1e9)).sum(-1),
            "approx_kl": ratio - 1 - change,  # Schulman 2020, "Approximating KL divergence"
        }
        return {name: masked_mean(value, window) for name, value in values.items()}

    def log_probs(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Return the log probabilities [B, T, A] of hidden states; -inf outside `mask`."""
        logits = self.model.logits(hidden)
        if mask is not None:
            logits = logits.masked_fill(~mask, float("-inf"))
        return logits.log_softmax(-1)

    def state(self) -> dict:
        """Return the optimizer's state."""
        return {"optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict) -> None:
        """Set the state to one returned by `state`."""
        self.optimizer.load_state_dict(state["optimizer"])

    def _environments(self, key: int) -> tuple[Any, list[int]]:
        """Return a vector environment of `make_envs` in tasks drawn by `key`, and its seeds."""
        num_envs = self.settings.num_envs
        drawn = uniform(np.uint64(derive_key(key, "task")), np.arange(num_envs))
        tasks = self.tasks[(drawn * len(self.tasks)).astype(int)]
        seeds = [derive_key(key, "world", n) >> 1 for n in range(num_envs)]
        changes = task_changes(self.env, [self.tasks], list(zip(seeds, tasks, strict=True)))
        return make_envs(self.env, tasks, changes), seeds
