"""Collection: source agents that learn and are stored, and environments that only step."""

import tempfile

import gymnasium
import numpy as np

import envs
from ad.config.parser import load
from ad.runtime.devices import torch_threads
from ad.runtime.run import Run
from ad.sources.a2c import Settings
from scripts.benchmark import peers
from scripts.benchmark.measure import Effort, Measurement, Work, alternate, median

SEED_SETTINGS = {"learning_rate": 1e-4}  # of the seed experiment; the others are the defaults
AGENTS, AGENT_STEPS = (1, 10, 57, 200), 50_000
NUM_ENVS = (10, 100, 570, 3000, 10_000)
LAKES = "[{map_name: 4x4, is_slippery: false}, {map_name: 4x4, is_slippery: true}]"
TABLE, CROSSING = "MiniGridTable-v0", "MiniGrid-SimpleCrossingS9N1-v0"
SB3 = "Stable-Baselines3 A2C, 10 DummyVecEnv"


def agents(effort: Effort) -> Measurement:
    """Measure 57 agents x 10 environments against SB3's A2C, and against stepping alone."""
    contenders = {
        "ours": collect_histories(
            effort.scaled(100_000, 10_000), "--source.settings.learning_rate", "1e-4"
        ),
        "stepping": stepping(570, effort.scaled(1000)),
    }
    if peers.installed("stable_baselines3"):
        contenders[SB3] = sb3("DarkRoom-v0", effort.scaled(20_000))
    return _measure("57 A2C agents x 10", contenders, effort, "stepping", [])


def agents_growth(effort: Effort) -> Measurement:
    """Measure 1 to 200 agents, in a room that has a goal for each."""
    rates = {}
    for count in AGENTS[:: 3 if effort.quick else 1]:
        options = ("--env.kwargs.size", "15", "--split.num_train_tasks", str(count))
        work = collect_histories(10 * effort.scaled(AGENT_STEPS // 10), *options)
        rates[str(count)] = alternate({"ours": work}, effort.repeats)["ours"]
    name = "200 agents against 1, room 15 x 15"
    result = Measurement("collect", name, "steps", median(rates["200"]), rates)
    result.peer_name, result.peer = "one agent at a time", median(rates["1"])
    costs = {count: round(1e9 / median(values), 1) for count, values in rates.items()}
    result.detail["cost per step, ns"] = costs
    return result


def gymnasium_environment(effort: Effort) -> Measurement:
    """Measure our A2C against SB3's on FrozenLake, which Gymnasium steps."""
    options = ("--env.id", "FrozenLake-v1", "--env.tasks", LAKES, "--split.num_train_tasks", "1")
    options += ("--env.episode_length", "100")
    contenders = {"ours": collect_histories(effort.scaled(40_000, 2_000), *options)}
    if peers.installed("stable_baselines3"):
        contenders[SB3] = sb3("FrozenLake-v1", effort.scaled(20_000, 2_000), map_name="4x4")
    return _measure("A2C on FrozenLake, any Gymnasium world", contenders, effort)


def stepping_570(effort: Effort) -> Measurement:
    """Measure 570 environments of DarkRoom against Gymnasium's SyncVectorEnv."""
    contenders = {
        "ours": stepping(570, effort.scaled(5000)),
        "Gymnasium SyncVectorEnv": sync_stepping(570, effort.scaled(100)),
    }
    return _measure("stepping, 570 environments", contenders, effort)


def stepping_10000(effort: Effort) -> Measurement:
    """Measure 10,000 environments against one table look-up per environment and step.

    The details have the cost of fewer environments.
    """
    count = NUM_ENVS[-1]
    table, indices = np.arange(405), np.random.default_rng(0).integers(405, size=count)

    def look_up() -> float:
        for _ in range(1000):
            table.take(indices)
        return 1000.0 * count

    contenders = {"ours": stepping(count, effort.scaled(500)), "bare look-up": look_up}
    result = _measure("stepping, 10,000 environments", contenders, effort, "bare look-up")
    costs = result.detail["cost per step, ns"] = {}
    for num_envs in NUM_ENVS:
        work = stepping(num_envs, effort.scaled(1000))
        costs[str(num_envs)] = round(1e9 / alternate({"ours": work}, 1)["ours"][0], 2)
    return result


def stepping_minigrid(effort: Effort) -> Measurement | None:
    """Measure 1,000 environments of MiniGrid as tables against one that the package steps.

    They observe the number of a picture; the details have the steps a second with pictures.
    """
    if not peers.installed("minigrid", "minigrid"):
        return None
    layouts = {"minigrid_id": CROSSING, "seeds": 10}
    tasks = np.resize(envs.make_base(TABLE, **layouts).all_tasks(), (1000, 1))
    contenders = {
        "ours": step_by_drawn_actions(
            envs.make_vec(TABLE, tasks, None, **layouts), effort.scaled(2000)
        ),
        "minigrid": package_stepping(CROSSING, effort.scaled(4000)),
    }
    result = _measure("stepping, 1,000 environments of SimpleCrossingS9N1", contenders, effort)
    pictures = envs.make_vec(TABLE, tasks, None, observation="index", **layouts)
    work = step_by_drawn_actions(pictures, effort.scaled(2000))
    result.detail["with pictures, steps /s"] = round(alternate({"ours": work}, 1)["ours"][0])
    return result


def collect_histories(env_steps: int, *options: str) -> Work:
    """Return work that collects fresh histories of `env_steps` steps; its unit is an env step.

    `options` are those of `scripts.collect`.
    """

    def work() -> float:
        from ad.collection.collect import collect

        with tempfile.TemporaryDirectory() as root:
            short = ["--source.env_steps", str(env_steps), "--data.context_length", "1"]
            short += ["--data.history_stride", "1"]
            config = load(["--root", root, *short, *options])
            collect(Run.open(config))
            return float(env_steps * len(Run(config).split.train_tasks))

    return work


def sb3(env_id: str, steps: int, **kwargs) -> Work:
    """Return work in which SB3's A2C learns for `steps` more env steps.

    It has one thread: at this size a second one makes it slower.
    """
    learner = peers.sb3_a2c(env_id, 10, Settings(**SEED_SETTINGS), **kwargs)

    def work() -> float:
        with torch_threads(1):
            learner.learn(steps)
        return float(steps)

    return work


def stepping(num_envs: int, steps: int) -> Work:
    """Return work that steps environments of DarkRoom by actions that were drawn before."""
    tasks = np.resize(envs.make_base("DarkRoom-v0").all_tasks(), (num_envs, 2))
    return step_by_drawn_actions(envs.make_vec("DarkRoom-v0", tasks, 20), steps)


def sync_stepping(num_envs: int, steps: int) -> Work:
    """Return work that steps a SyncVectorEnv of DarkRoom by actions that were drawn before."""
    mode = gymnasium.vector.AutoresetMode.SAME_STEP
    makers = [lambda: envs.make("DarkRoom-v0")] * num_envs
    env = gymnasium.vector.SyncVectorEnv(makers, autoreset_mode=mode)
    return step_by_drawn_actions(env, steps)


def package_stepping(env_id: str, steps: int) -> Work:
    """Return work that steps one environment of Gymnasium by drawn actions, always in a layout."""
    env = gymnasium.make(env_id, disable_env_checker=True)
    actions = np.random.default_rng(0).integers(env.action_space.n, size=steps).tolist()
    env.reset(seed=0)

    def work() -> float:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset(seed=0)
        return float(steps)

    return work


def step_by_drawn_actions(env, steps: int) -> Work:
    """Return work that steps all environments `steps` times, by actions drawn before."""
    shape = 100, env.num_envs
    actions = np.random.default_rng(0).integers(env.single_action_space.n, size=shape)
    env.reset(seed=0)

    def work() -> float:
        for step in range(steps):
            env.step(actions[step % 100])
        return float(env.num_envs * steps)

    return work


def _measure(
    name: str,
    contenders: dict[str, Work],
    effort: Effort,
    limit: str = "",
    peak: list[int] | None = None,
) -> Measurement:
    """Measure `contenders`: "ours", the `limit` if there is one, and at most one peer."""
    rates = alternate(contenders, effort.repeats, peak=peak)
    result = Measurement("collect", name, "steps", median(rates["ours"]), rates)
    for other in rates.keys() - {"ours", limit}:
        result.peer_name, result.peer = other, median(rates[other])
    if limit:
        result.limit_name, result.limit = limit, median(rates[limit])
    result.peak_memory = next(iter(peak or ()), None)
    return result


BENCHMARKS = [agents, agents_growth, gymnasium_environment]
BENCHMARKS += [stepping_570, stepping_10000, stepping_minigrid]
