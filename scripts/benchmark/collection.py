"""Collection and stepping: source agents that learn and store, and lanes that only step."""

import tempfile

import gymnasium
import numpy as np

import envs
from ad.config.parser import load
from ad.runtime.devices import torch_threads
from ad.runtime.run import Run
from ad.sources.a2c import Settings
from scripts.benchmark import peers
from scripts.benchmark.measure import (
    Effort,
    Row,
    Work,
    alternate,
    median,
)

SEED = {"learning_rate": 1e-4}  # the seed experiment's; all else is the default
AGENTS, AGENT_STEPS = (1, 10, 57, 200), 50_000
LANES = (10, 100, 570, 3000, 10_000)
LAKES = "[{map_name: 4x4, is_slippery: false}, {map_name: 4x4, is_slippery: true}]"


def agents(effort: Effort) -> Row:
    """57 agents x 10 environments, learning and storing, against SB3's A2C and bare stepping."""
    steps = effort.of(100_000, 10_000)
    contenders = {
        "ours": collection(steps, "--source.settings.learning_rate", "1e-4"),
        "stepping": stepping(570, effort.of(1000)),
    }
    if peers.installed("stable_baselines3"):
        contenders["Stable-Baselines3 A2C, 10 DummyVecEnv"] = sb3("DarkRoom-v0", effort.of(20_000))
    row = _row("57 A2C agents x 10", contenders, effort, "stepping", [])
    return _judged(row, "80 x the peer (aim 150)", row.ratio and row.ratio >= 80)


def agents_growth(effort: Effort) -> Row:
    """The same in a room with goals for 200 agents, for one up to all of them."""
    rates = {}
    for count in AGENTS[:: 3 if effort.quick else 1]:
        # 15 x 15: a room with so many goals
        room = ("--env.kwargs.size", "15", "--split.num_train_tasks", str(count))
        work = collection(10 * effort.of(AGENT_STEPS // 10), *room)
        rates[str(count)] = alternate({"ours": work}, effort.repeats)["ours"]
    ours = median(rates["200"])
    row = Row("collect", "200 agents against 1, room 15 x 15", "steps", ours, rates)
    row.peer_name, row.peer = "one agent at a time", median(rates["1"])
    row.detail["cost per step, ns"] = {k: round(1e9 / median(v), 1) for k, v in rates.items()}
    return _judged(row, "cheaper with every agent", _falls(row.detail["cost per step, ns"]))


def any_world(effort: Effort) -> Row:
    """The general path: a FrozenLake, stepped by Gymnasium, with our learner, against SB3's."""
    lakes = ("--env.id", "FrozenLake-v1", "--env.tasks", LAKES, "--split.num_train_tasks", "1")
    contenders = {
        "ours": collection(effort.of(40_000, 2_000), *lakes, "--env.episode_length", "100")
    }
    if peers.installed("stable_baselines3"):
        name = "Stable-Baselines3 A2C, 10 DummyVecEnv"
        contenders[name] = sb3("FrozenLake-v1", effort.of(20_000, 2_000), map_name="4x4")
    return _row("A2C on FrozenLake, any Gymnasium world", contenders, effort)


def lanes(effort: Effort) -> Row:
    """570 lanes of DarkRoom against Gymnasium's SyncVectorEnv of as many single ones."""
    name = "Gymnasium SyncVectorEnv"
    contenders = {"ours": stepping(570, effort.of(5000)), name: sync_stepping(570, effort.of(100))}
    row = _row("stepping, 570 lanes", contenders, effort)
    return _judged(row, "20 x the peer", row.ratio >= 20)


def many_lanes(effort: Effort) -> Row:
    """10,000 lanes against one bare table look-up a lane and step, and the growth to there."""
    count = LANES[-1]
    table, place = np.arange(405), np.random.default_rng(0).integers(405, size=count)

    def look_up() -> float:
        for _ in range(1000):
            table.take(place)
        return 1000.0 * count

    contenders = {"ours": stepping(count, effort.of(500)), "bare look-up": look_up}
    row = _row("stepping, 10,000 lanes", contenders, effort, "bare look-up")
    for n in LANES:
        rate = alternate({"ours": stepping(n, effort.of(1000))}, 1)["ours"][0]
        row.detail.setdefault("cost per step, ns", {})[str(n)] = round(1e9 / rate, 2)
    return _judged(row, "20 M steps/s", row.ours >= 20e6)


def collection(env_steps: int, *words: str) -> Work:
    """Collects a fresh dataset of so many steps an agent, as `scripts.collect` does."""

    def work() -> float:
        from ad.collection.collect import collect

        with tempfile.TemporaryDirectory() as root:
            short = ["--source.env_steps", str(env_steps), "--data.context_length", "1"]
            short += ["--data.history_stride", "1"]
            config = load(["--root", root, *short, *words]).config
            collect(Run.open(config))
            return float(env_steps * len(Run(config).split.train_tasks))

    return work


def sb3(env_id: str, steps: int, **kwargs) -> Work:
    """SB3's learner for `steps` more steps. One thread: at this size a second one only costs."""
    learner = peers.sb3_a2c(env_id, 10, Settings(**SEED), **kwargs)

    def work() -> float:
        with torch_threads(1):
            learner.learn(steps)
        return float(steps)

    return work


def stepping(count: int, steps: int) -> Work:
    """Steps `count` lanes of DarkRoom by actions drawn before."""
    tasks = np.resize(envs.make_base("DarkRoom-v0").all_tasks(), (count, 2))
    return _stepping(envs.make_vec("DarkRoom-v0", tasks, 20), count, steps)


def sync_stepping(count: int, steps: int) -> Work:
    """The same by a SyncVectorEnv of single environments."""
    mode = gymnasium.vector.AutoresetMode.SAME_STEP
    singles = [lambda: envs.make("DarkRoom-v0")] * count
    return _stepping(gymnasium.vector.SyncVectorEnv(singles, autoreset_mode=mode), count, steps)


def _stepping(lanes, count: int, steps: int) -> Work:
    actions = np.random.default_rng(0).integers(5, size=(100, count))
    lanes.reset(seed=0)

    def work() -> float:
        for step in range(steps):
            lanes.step(actions[step % 100])
        return float(count * steps)

    return work


def _row(
    name: str,
    contenders: dict[str, Work],
    effort: Effort,
    limit: str = "",
    peak: list[int] | None = None,
) -> Row:
    """Measure; the contender that is neither ours nor the `limit` is the peer."""
    rates = alternate(contenders, effort.repeats, peak=peak)
    row = Row("collect", name, "steps", median(rates["ours"]), rates)
    for other in rates.keys() - {"ours", limit}:
        row.peer_name, row.peer = other, median(rates[other])
    if limit:
        row.limit_name, row.limit = limit, median(rates[limit])
    row.peak_memory = next(iter(peak or ()), None)
    return row


def _judged(row: Row, target: str, met: bool | None) -> Row:
    row.target, row.met = target, met
    return row


def _falls(costs: dict[str, float]) -> bool:
    values = list(costs.values())
    return values == sorted(values, reverse=True)


ROWS = [agents, agents_growth, any_world, lanes, many_lanes]
