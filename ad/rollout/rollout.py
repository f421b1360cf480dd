"""In-context rollouts: episodes of many environments in lockstep, with a frozen model's policy."""

from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from ad.data.episodes import known_successes
from ad.errors import NumericError
from envs.rng import derive_key, uniform

# Fields of a trajectory and their dtypes; observations are uint16 in a world with more than 32,768.
RECORDED = {
    "observation": np.int16,
    "action": np.uint8,
    "reward": np.float32,
    "next_observation": np.int16,
    "episode": np.int32,
    "time": np.int32,
}

# Some environments take four times as many steps as others for their episodes. Finished ones leave
# the policy's batch when fewer than this share of it still play: from there on, stepping them costs
# more than copying the context of the others.
COMPACT_BELOW = 7 / 8


@dataclass
class Rollout:
    """Returns, lengths and successes [N, E] of N environments and E episodes each.

    `successes`, float64: 1, 0 or NaN where the world cannot tell.
    `reward_in_context`, bool [N, E]: whether the context held a reward above 0 when an episode
    began. `trajectory`: fields [R, T] of the environments `recorded`, int [R]; its episode is -1
    after an environment's last one.
    """

    returns: np.ndarray
    lengths: np.ndarray
    successes: np.ndarray
    reward_in_context: np.ndarray
    recorded: np.ndarray
    trajectory: dict[str, np.ndarray]

    @property
    def env_steps(self) -> int:
        """Return the number of steps in the counted episodes of all environments."""
        return int(self.lengths.sum())

    def select_envs(self, start: int, stop: int) -> "Rollout":
        """Return the rollout of the environments `start` to before `stop`."""
        envs, shown = slice(start, stop), (start <= self.recorded) & (self.recorded < stop)
        trajectory = {name: values[shown] for name, values in self.trajectory.items()}
        longest = (trajectory["episode"] >= 0).sum(1).max(initial=0)
        return Rollout(
            self.returns[envs],
            self.lengths[envs],
            self.successes[envs],
            self.reward_in_context[envs],
            self.recorded[shown] - start,
            {name: values[:, :longest] for name, values in trajectory.items()},
        )


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


def rollout(
    model,
    method,
    env,
    seeds,
    episodes: int,
    context_length: int,
    select_action,
    record=(),
    label=None,
) -> Rollout:
    """Play `episodes` in-context episodes in every environment of `env` (SAME_STEP autoreset).

    `seeds` holds one 64-bit key for each environment: of its world, and of the uniform draws u [N]
    in [0, 1) of `select_action(logits [N, A], u) -> actions [N]`. `record` lists the environments
    whose trajectories are kept. `label` names the progress bar; None hides it. Raises NumericError
    if logits are not finite.
    """
    device = model.head.weight.device
    env_seeds = [derive_key(int(seed), "world") >> 1 for seed in seeds]
    keys = np.array([derive_key(int(seed), "action") for seed in seeds], np.uint64)
    observation, info = env.reset(seed=env_seeds)
    statistics, recorded = EpisodeStatistics(env.num_envs, episodes), np.array(record, np.int64)
    steps, envs, action = [], np.arange(env.num_envs), np.zeros(env.num_envs, np.int64)
    with torch.inference_mode(), _bar(env.num_envs * episodes, label) as bar:
        policy = method.begin(model, env.num_envs, context_length)
        while (active := statistics.active).any():
            if (playing := active[envs]).mean() < COMPACT_BELOW:
                policy.select(_tensor(np.flatnonzero(playing), device))
                envs = envs[playing]
            time, episode = info["time"], np.where(active, statistics.episode, -1)
            logits = policy.act(_tensor(observation[envs], device), _tensor(time[envs], device))
            if (begins := active[envs] & (time[envs] == 0)).any():
                statistics.begin(envs[begins], policy.reward_in_context().cpu().numpy()[begins])
            action[envs] = select_action(_finite(logits), uniform(keys[envs], len(steps)))
            next_observation, reward, terminated, truncated, info = env.step(action)
            outcome = (action, reward, info.get("final_obs", next_observation))
            policy.observe(*(_tensor(values[envs], device) for values in outcome))
            statistics.add(reward, terminated | truncated)
            fields = (observation, *outcome, episode, time)
            steps.append([values[recorded] for values in fields])
            observation = next_observation
            bar.update(int(statistics.episode.sum()) - bar.n)
    return Rollout(
        statistics.returns,
        statistics.lengths,
        known_successes(env.unwrapped, statistics.returns),
        statistics.reward_in_context,
        recorded,
        _trajectory(steps, int(env.single_observation_space.n)),
    )


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


def _tensor(array: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def _finite(logits: torch.Tensor) -> np.ndarray:
    values = logits.double().cpu().numpy()
    if not np.isfinite(values).all():
        raise NumericError("the model gave logits that are not finite; this checkpoint is unusable")
    return values


def _trajectory(steps: list[list[np.ndarray]], num_observations: int) -> dict[str, np.ndarray]:
    """Stack the recorded fields of all steps, [R] each, into arrays [R, T] by name."""
    wide = num_observations > np.iinfo(np.int16).max + 1
    dtypes = [np.uint16 if wide and dtype is np.int16 else dtype for dtype in RECORDED.values()]
    columns = zip(RECORDED, zip(*steps, strict=True), dtypes, strict=True)
    return {name: np.stack(column, axis=1).astype(dtype) for name, column, dtype in columns}


def _bar(total: int, label: str | None) -> tqdm:
    return tqdm(total=total, desc=label, unit=" episodes", disable=True if label is None else None)
