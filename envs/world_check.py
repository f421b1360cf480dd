"""What is wrong with a world: its tasks, its facts about them, and how its environments step."""

from collections.abc import Callable, Iterator

import numpy as np
from gymnasium.vector import VectorEnv

from envs.oracle import TaskOracle
from envs.rng import draw_allowed
from envs.spaces import check_action_space, check_observation_space
from envs.wrappers import VectorEpisodeLength

STEPS = 60, 1000  # the fewest, and the most
FACTS = ("optimal_return", "random_return")  # of an episode, float [K]


def world_problems(
    world: TaskOracle, make_envs: Callable[[np.ndarray], VectorEpisodeLength], episode_length: int
) -> Iterator[str]:
    """Yield a sentence for each rule of `TaskOracle` and of vector environments that is broken.

    `make_envs(tasks)` makes a vector environment of `world` that resets itself in the same step,
    with episodes of at most `episode_length` steps. Random actions are played for two of them, but
    for 60 to 1,000 steps.
    """
    check_observation_space(world.single_observation_space)
    check_action_space(world.single_action_space)
    tasks = np.asarray(world.all_tasks())
    if tasks.ndim != 2 or tasks.dtype.kind not in "iu":
        yield f"all_tasks() must be int [K, D], it is {tasks.dtype} {list(tasks.shape)}"
        return
    if len(np.unique(tasks, axis=0)) < max(2, len(tasks)):
        yield f"all_tasks() must be two different tasks or more, each once; it has {len(tasks)}"
        return
    few = tasks[np.linspace(0, len(tasks) - 1, 4).astype(int)]
    yield from _facts(world, few, episode_length)
    yield from _steps(world, make_envs, few, min(max(STEPS[0], 2 * episode_length + 10), STEPS[1]))


def _facts(world: TaskOracle, tasks: np.ndarray, episode_length: int) -> Iterator[str]:
    num_actions = world.num_actions
    known = {name: getattr(world, name)(tasks, episode_length) for name in FACTS}
    for name, values in known.items():
        if values is not None and np.shape(values) != (len(tasks),):
            yield f"{name} must be float [K] or None, its shape is {list(np.shape(values))}"
            return
    optimal, random = known.values()
    if optimal is not None and random is not None and (optimal < random - 1e-6).any():
        task = world.names(tasks)[int(np.argmin(optimal - random))]
        yield f"random_return is above optimal_return in {task}"
    if len(world.names(tasks)) != len(tasks):
        yield "names(tasks) must have a name for each task"
    mask = world.action_mask(tasks)
    if mask is not None and (np.shape(mask) != (len(tasks), num_actions) or not mask.any(1).all()):
        yield f"action_mask must be bool [K, {num_actions}] with an action in each task"
    policy = world.optimal_policy(tasks)
    if policy is not None and not np.allclose(np.sum(policy, -1), 1):
        yield "the probabilities of optimal_policy must sum to 1 in each state"


def _steps(
    world: TaskOracle,
    make_envs: Callable[[np.ndarray], VectorEpisodeLength],
    tasks: np.ndarray,
    steps: int,
) -> Iterator[str]:
    num_envs, rng, mask = len(tasks), np.random.default_rng(0), world.action_mask(tasks)
    if mask is None:
        mask = np.ones((num_envs, world.num_actions), bool)
    actions = np.array([draw_allowed(mask, u) for u in rng.random((steps, num_envs))])
    seeds = list(range(3, 3 + num_envs))
    together, again = (_play(make_envs(tasks), seeds, actions) for _ in range(2))
    alone = _play(make_envs(tasks[2:3]), seeds[2:3], actions[:, 2:3])
    first = together[1]["reward"], together[1]["terminated"], together[1]["truncated"]
    shapes = [(array.dtype.name, array.shape) for array in first]
    expected = [(name, (num_envs,)) for name in ("float32", "bool", "bool")]
    if shapes != expected:
        yield f"step must return rewards and two flags {expected}, it returns {shapes}"
        return
    if name := _difference(together, again, slice(None)):
        yield f"the same seeds and actions give another {name}: random numbers must come from them"
    elif name := _difference(together, alone, slice(2, 3)):
        yield f"an environment has another {name} alone than in a batch, with the same seed"


def _play(
    env: VectorEpisodeLength, seeds: list[int], actions: np.ndarray
) -> list[dict[str, np.ndarray]]:
    """Return what the reset and each step return, as flat dicts of arrays [N, ...].

    Raises ValueError for an observation outside its space.
    """
    observation, _ = env.reset(seed=seeds)
    _check_inside(env, observation)
    played = [_flat(observation)]
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        final = info.get("final_obs", observation)
        _check_inside(env, observation, final)
        ends = {"reward": reward, "terminated": terminated, "truncated": truncated}
        played.append(_flat(observation) | _flat(final, "final observation") | ends)
    env.close()
    return played


def _check_inside(env: VectorEnv, *observations) -> None:
    if not all(observation in env.observation_space for observation in observations):
        raise ValueError(f"an observation is not in {env.observation_space}")


def _flat(observation, name: str = "observation") -> dict[str, np.ndarray]:
    if isinstance(observation, dict):
        return {f"{name} {part}": own for part, own in observation.items()}
    if isinstance(observation, tuple):
        return {f"{name} {part}": own for part, own in enumerate(observation)}
    return {name: observation}


def _difference(one: list[dict], other: list[dict], envs: slice) -> str:
    """Return what differs first between the environments `envs` of `one` and `other`, "" if none.

    Later steps differ because an earlier one did.
    """
    for step, (mine, theirs) in enumerate(zip(one, other, strict=True)):
        for name, values in mine.items():
            if not np.array_equal(np.asarray(values)[envs], theirs[name]):
                return f"{name} at step {step}"
    return ""
