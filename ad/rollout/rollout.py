"""In-context rollouts: episodes of many environments in lockstep, with a frozen model's policy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from tqdm import tqdm

from ad.data.episodes import success_or_nan
from ad.data.schema import transition_fields
from ad.data.spec import field_name
from ad.errors import NumericError
from ad.methods.policy import Observation, Policy, as_tensor, observation_tensors
from envs.changes import Changes
from envs.rng import derive_key, uniform
from envs.spaces import split_observation

# Some environments take four times as many steps as others for their episodes. Finished ones leave
# the policy's batch when fewer than this share of it still play: from there on, stepping them costs
# more than copying the context of the others.
COMPACT_BELOW = 7 / 8


SelectAction = Callable[[np.ndarray, np.ndarray], np.ndarray]  # logits [N, A], u [N] -> actions [N]


@dataclass
class Rollout:
    """Returns, lengths and successes [N, E] of N environments and E episodes each.

    `successes`, float64: 1, 0 or NaN where the world does not define success. An environment that
    completed fewer episodes than others has NaN in the place of their returns, and lengths of 0.
    `reward_in_context`, bool [N, E]: whether the context held a reward above 0 when an episode
    began. `trajectory`: fields [R, T] of the environments `recorded`, int [R], with T = 1 if there
    are none; its episode is -1 after an environment's last one. `tasks`: those of the episodes, int
    [N, E, D], if they change.
    """

    returns: np.ndarray
    lengths: np.ndarray
    successes: np.ndarray
    reward_in_context: np.ndarray
    recorded: np.ndarray
    trajectory: dict[str, np.ndarray]
    tasks: np.ndarray | None = None

    @property
    def env_steps(self) -> int:
        """Return the number of steps in the counted episodes of all environments."""
        return int(self.lengths.sum())

    def select_envs(self, start: int, stop: int) -> "Rollout":
        """Return the rollout of the environments `start` to before `stop`."""
        envs, kept = slice(start, stop), (start <= self.recorded) & (self.recorded < stop)
        trajectory = {name: values[kept] for name, values in self.trajectory.items()}
        longest = (trajectory["episode"] >= 0).sum(1).max(initial=0)
        return Rollout(
            self.returns[envs],
            self.lengths[envs],
            self.successes[envs],
            self.reward_in_context[envs],
            self.recorded[kept] - start,
            {name: values[:, :longest] for name, values in trajectory.items()},
            None if self.tasks is None else self.tasks[envs],
        )

    def with_tasks(self, first: np.ndarray, changes: Changes | None) -> "Rollout":
        """Return the rollout with the tasks of its episodes; `first` are those of the first."""
        if changes is None:
            return self
        return replace(self, tasks=changes.tasks(first, self.returns.shape[1]))


class EpisodeStatistics:
    """Counts returns and lengths of each environment's episodes until it has played E of them."""

    def __init__(self, num_envs: int, episodes: int):
        self.returns = np.zeros((num_envs, episodes), np.float64)
        self.lengths = np.zeros((num_envs, episodes), np.int64)
        self.reward_in_context = np.zeros((num_envs, episodes), bool)
        self.episode = np.zeros(num_envs, np.int64)

    @property
    def active(self) -> np.ndarray:
        """Return which environments still play counted episodes, bool [N]."""
        return self.episode < self.returns.shape[1]

    def begin(self, envs: np.ndarray, reward_in_context: np.ndarray) -> None:
        """Begin an episode in `envs`, int [M]; `reward_in_context` is bool [M]."""
        self.reward_in_context[envs, self.episode[envs]] = reward_in_context

    def add(self, reward: np.ndarray, done: np.ndarray) -> None:
        """Count one step of every environment [N] that is still active."""
        envs = np.flatnonzero(self.active)
        self.returns[envs, self.episode[envs]] += reward[envs]
        self.lengths[envs, self.episode[envs]] += 1
        self.episode[envs] += done[envs]

    def drop_unfinished(self) -> None:
        """Keep the episodes that an environment completed: other returns are NaN, lengths 0."""
        most = self.episode.max()
        unfinished = np.arange(most) >= self.episode[:, None]
        self.returns = np.where(unfinished, np.nan, self.returns[:, :most])
        self.lengths = np.where(unfinished, 0, self.lengths[:, :most])
        self.reward_in_context = self.reward_in_context[:, :most] & ~unfinished


def rollout(
    policy: Policy,
    env,
    seeds: Sequence[int],
    episodes: int,
    select_action: SelectAction,
    record: Sequence[int] = (),
    label: str | None = None,
    env_steps: int | None = None,
) -> Rollout:
    """Play `episodes` in-context episodes in every environment of `env` (SAME_STEP autoreset).

    With `env_steps`, `episodes` is not used: each environment takes `env_steps` steps, and an
    episode that is unfinished then is left out.

    `seeds` holds one 64-bit key for each environment: of its world, and of the uniform draws u [N]
    in [0, 1) of `select_action(logits [N, A], u) -> actions [N]`. Actions that a task does not have
    are not selected. `record` lists the environments whose trajectories are kept. `label` names the
    progress bar; None hides it. Raises NumericError if logits are not finite.
    """
    env_seeds, keys = derive_seeds(seeds)
    tensor = partial(as_tensor, device=policy.device)
    split = partial(split_observation, env.single_observation_space)
    if (mask := env.unwrapped.action_mask(env.unwrapped.tasks)) is not None:
        policy.set_action_mask(tensor(mask))
    observation, info = env.reset(seed=env_seeds)
    parts = split(observation)
    episodes = env_steps or episodes  # an episode has a step at least
    statistics, recorded = EpisodeStatistics(env.num_envs, episodes), np.array(record, np.int64)
    envs, action = np.arange(env.num_envs), np.zeros(env.num_envs, np.int64)
    steps, count = [], 0
    total = env_steps or env.num_envs * episodes
    unit, silent = " steps" if env_steps else " episodes", True if label is None else None
    with torch.inference_mode(), tqdm(total=total, desc=label, unit=unit, disable=silent) as bar:
        while count != env_steps and (active := statistics.active).any():
            if (playing := active[envs]).mean() < COMPACT_BELOW:
                policy.select(tensor(np.flatnonzero(playing)))
                envs = envs[playing]
            time, episode = info["time"], np.where(active, statistics.episode, -1)
            logits = policy.act(_chosen(parts, envs, policy), tensor(time[envs]))
            if (begins := active[envs] & (time[envs] == 0)).any():
                seen = policy.reward_in_context()
                seen = np.zeros(len(envs), bool) if seen is None else seen.cpu().numpy()
                statistics.begin(envs[begins], seen[begins])
            allowed = allowed_logits(logits, None if mask is None else mask[envs])
            action[envs] = select_action(allowed, uniform(keys[envs], count))
            observation, reward, terminated, truncated, info = env.step(action)
            next_parts = split(observation)
            final = split(info["final_obs"]) if "final_obs" in info else next_parts
            outcome = (tensor(own[envs]) for own in (action, reward, terminated, truncated))
            policy.observe(*outcome, _chosen(final, envs, policy))
            statistics.add(reward, terminated | truncated)
            if len(recorded) or not steps:  # one empty step keeps names, shapes and dtypes
                fields = {
                    **{field_name("observation", name): each for name, each in parts.items()},
                    **{"action": action, "reward": reward},
                    **{field_name("next_observation", name): each for name, each in final.items()},
                    **{"episode": episode, "time": time},
                }
                steps.append({name: values[recorded] for name, values in fields.items()})
            parts, count = next_parts, count + 1
            bar.update((count if env_steps else int(statistics.episode.sum())) - bar.n)
    statistics.drop_unfinished()
    trajectory = _trajectory(steps, env.unwrapped)
    trajectory["episode"][trajectory["episode"] >= statistics.episode[recorded, None]] = -1
    return Rollout(
        statistics.returns,
        statistics.lengths,
        success_or_nan(env.unwrapped, statistics.returns),
        statistics.reward_in_context,
        recorded,
        trajectory,
    )


def rollouts_by_split(
    tasks: tuple[np.ndarray, np.ndarray],
    num_seeds: tuple[int, int],
    play: Callable[[Sequence[tuple[int, np.ndarray]], Sequence[int]], Rollout],
) -> dict[str, Rollout]:
    """Return the rollouts "held_out" and "train", each [seeds * tasks, E], seed by seed.

    `tasks` are the held-out and the train tasks, int [K, ...] each, `num_seeds` their numbers of
    evaluation seeds. `play(envs, first_seed)` returns one rollout of the environments of both,
    pairs of an evaluation seed and a task; `first_seed` lists those with the first seed.
    """
    held_out, train = (
        [(seed, task) for seed in range(count) for task in own]
        for own, count in zip(tasks, num_seeds, strict=True)
    )
    envs = held_out + train
    results = play(envs, [env for env, (seed, _) in enumerate(envs) if seed == 0])
    return {
        "held_out": results.select_envs(0, len(held_out)),
        "train": results.select_envs(len(held_out), len(envs)),
    }


def derive_seeds(seeds: Sequence[int]) -> tuple[list[int], np.ndarray]:
    """Return the seeds of the worlds, and the keys of the draws of actions, uint64 [N]."""
    env_seeds = [derive_key(int(seed), "world") >> 1 for seed in seeds]
    return env_seeds, np.array([derive_key(int(seed), "action") for seed in seeds], np.uint64)


def _chosen(parts: dict[str, np.ndarray], envs: np.ndarray, policy: Policy) -> Observation:
    """Return the observations of `envs`, int [M], on the device of the policy."""
    return observation_tensors({name: own[envs] for name, own in parts.items()}, policy.device)


def sampled(temperature: float = 1.0):
    """Return a `select_action` that draws from softmax(logits / temperature)."""

    def select_action(logits: np.ndarray, u: np.ndarray) -> np.ndarray:
        scaled = (logits - logits.max(1, keepdims=True)) / temperature
        cumulative = np.cumsum(np.exp(scaled), axis=1)
        return (u[:, None] * cumulative[:, -1:] >= cumulative[:, :-1]).sum(1)

    return select_action


def greedy(logits: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Return the most likely actions [N]; `u` is not used."""
    return logits.argmax(1)


def allowed_logits(logits: torch.Tensor, mask: np.ndarray | None) -> np.ndarray:
    """Return `logits` [N, A] as float64 with -inf for the actions outside `mask` [N, A].

    Raises NumericError if logits are not finite.
    """
    values = logits.double().cpu().numpy()
    values = values if mask is None else np.where(mask, values, -np.inf)
    if not np.isfinite(values.max(1)).all():  # -inf stands for an action that is never taken
        raise NumericError("the model gave logits that are not finite; this checkpoint is unusable")
    return values


def _trajectory(steps: list[dict[str, np.ndarray]], world) -> dict[str, np.ndarray]:
    """Stack the recorded fields of all steps, [R, ...] each, into arrays [R, T, ...] by name."""
    dtypes = {name: field.dtype for name, field in transition_fields(world).items()}
    dtypes |= dict.fromkeys(("episode", "time"), np.dtype(np.int32))
    return {
        name: np.stack([step[name] for step in steps], axis=1).astype(dtypes[name])
        for name in steps[0]
    }
