"""In-context rollouts: tasks × evaluation seeds in lockstep, frozen weights, one memory."""

from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from ad.errors import NumericError
from envs.rng import derive_key, uniform

RECORDED = {  # observations above 32,767 are recorded as uint16
    "observation": np.int16,
    "action": np.uint8,
    "reward": np.float32,
    "next_observation": np.int16,
    "episode": np.int32,
    "time": np.int32,
}


# Some lanes need four times as many steps as others for their episodes. Those that are over leave
# the memory as soon as they are an eighth of it: to go on costs more than a copy of the rest.
WORTH_KEEPING = 7 / 8


@dataclass
class Rollout:
    """Returns, lengths, successes [N, E] of N lanes and E episodes each.

    `seen`, bool [N, E]: whether at an episode's start the memory held a reward above 0.
    `trajectory`: fields [R, T] of the lanes `recorded`, int [R]; episode -1 when a lane is over.
    """

    returns: np.ndarray
    lengths: np.ndarray
    successes: np.ndarray
    seen: np.ndarray
    recorded: np.ndarray
    trajectory: dict[str, np.ndarray]

    @property
    def env_steps(self) -> int:
        """Steps of all lanes in the episodes that count."""
        return int(self.lengths.sum())

    def part(self, start: int, stop: int) -> "Rollout":
        """The lanes from `start` to before `stop` alone."""
        lanes, shown = slice(start, stop), (start <= self.recorded) & (self.recorded < stop)
        trajectory = {name: values[shown] for name, values in self.trajectory.items()}
        longest = (trajectory["episode"] >= 0).sum(1).max(initial=0)
        return Rollout(
            self.returns[lanes],
            self.lengths[lanes],
            self.successes[lanes],
            self.seen[lanes],
            self.recorded[shown] - start,
            {name: values[:, :longest] for name, values in trajectory.items()},
        )


class Tally:
    """Counts each lane's episodes, returns and lengths until it has E of them."""

    def __init__(self, lanes: int, episodes: int):
        self.returns = np.zeros((lanes, episodes), np.float64)
        self.lengths = np.zeros((lanes, episodes), np.int64)
        self.seen = np.zeros((lanes, episodes), bool)
        self.episode = np.zeros(lanes, np.int64)

    @property
    def active(self) -> np.ndarray:
        """Which lanes still play episodes that count, bool [N]."""
        return self.episode < self.returns.shape[1]

    def begin(self, lanes: np.ndarray, seen: np.ndarray) -> None:
        """An episode begins in `lanes` [M]; `seen`, bool [M]: whether their memory has a reward."""
        self.seen[lanes, self.episode[lanes]] = seen

    def add(self, reward: np.ndarray, done: np.ndarray) -> None:
        """Count one step of every lane; lanes that have all their episodes stay as they are."""
        lanes = np.flatnonzero(self.active)
        self.returns[lanes, self.episode[lanes]] += reward[lanes]
        self.lengths[lanes, self.episode[lanes]] += 1
        self.episode[lanes] += done[lanes]


def rollout(
    model, method, env, seeds, episodes: int, context_length: int, choose, record=(), label=None
):
    """Play `episodes` in-context episodes in every lane of `env` (SAME_STEP); a `Rollout`.

    `seeds`: one 64-bit key a lane, for the world and for `choose(logits [N, A], u [N]) -> actions
    [N]`. `record`: the lanes to keep the trajectory of. `label` names the progress bar. Raises
    NumericError for logits that are not finite.
    """
    device = model.head.weight.device
    env_seeds = [derive_key(int(seed), "world") >> 1 for seed in seeds]
    keys = np.array([derive_key(int(seed), "action") for seed in seeds], np.uint64)
    observation, info = env.reset(seed=env_seeds)
    tally, steps, recorded = Tally(env.num_envs, episodes), [], np.array(record, np.int64)
    lanes, action = np.arange(env.num_envs), np.zeros(env.num_envs, np.int64)
    with torch.inference_mode(), _bar(env.num_envs * episodes, label) as bar:
        memory = method.begin(model, env.num_envs, context_length)
        while (active := tally.active).any():
            if (going := active[lanes]).mean() < WORTH_KEEPING:
                memory.keep(_tensor(np.flatnonzero(going), device))
                lanes = lanes[going]
            time, episode = info["time"], np.where(active, tally.episode, -1)
            logits = memory.act(_tensor(observation[lanes], device), _tensor(time[lanes], device))
            if (fresh := active[lanes] & (time[lanes] == 0)).any():
                tally.begin(lanes[fresh], memory.rewarded().cpu().numpy()[fresh])
            action[lanes] = choose(_finite(logits), uniform(keys[lanes], len(steps)))
            following, reward, terminated, truncated, info = env.step(action)
            reached = info.get("final_obs", following)
            outcome = (action, reward, reached)
            memory.record(*(_tensor(value[lanes], device) for value in outcome))
            tally.add(reward, terminated | truncated)
            shown = (observation, *outcome, episode, time)
            steps.append([value[recorded] for value in shown])
            observation = following
            bar.update(int(tally.episode.sum()) - bar.n)
    scores = tally.returns, tally.lengths, tally.returns > 0, tally.seen
    return Rollout(*scores, recorded, _trajectory(steps, int(env.single_observation_space.n)))


def sampled(temperature: float = 1.0):
    """Actions drawn from softmax(logits / temperature)."""

    def choose(logits: np.ndarray, u: np.ndarray) -> np.ndarray:
        scaled = (logits - logits.max(1, keepdims=True)) / temperature
        cumulative = np.cumsum(np.exp(scaled), axis=1)
        return (u[:, None] * cumulative[:, -1:] >= cumulative[:, :-1]).sum(1)

    return choose


def greedy(logits: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The most likely actions."""
    return logits.argmax(1)


def _tensor(array: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def _finite(logits: torch.Tensor) -> np.ndarray:
    values = logits.double().cpu().numpy()
    if not np.isfinite(values).all():
        raise NumericError("the model gave logits that are not finite; this checkpoint is unusable")
    return values


def _trajectory(steps: list[list[np.ndarray]], num_observations: int) -> dict[str, np.ndarray]:
    wide = num_observations > np.iinfo(np.int16).max + 1
    dtypes = [np.uint16 if wide and dtype is np.int16 else dtype for dtype in RECORDED.values()]
    columns = zip(RECORDED, zip(*steps, strict=True), dtypes, strict=True)
    return {name: np.stack(column, axis=1).astype(dtype) for name, column, dtype in columns}


def _bar(total: int, label: str | None) -> tqdm:
    return tqdm(total=total, desc=label, unit=" episodes", disable=True if label is None else None)
