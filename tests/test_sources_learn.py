"""The return of every source that learns rises over its histories, in a small world."""

import numpy as np
import pytest
from recorded import played
from scipy.stats import sem, t
from source_words import BANDIT_SOURCES, SOURCE_WORDS

from ad.collection.job import new_source
from ad.data.episodes import episodes
from ad.registry import SOURCES
from ad.runtime.run import Run

LEVEL = 0.99  # of the interval of the mean rise of an agent
STEPS = {"a2c": 2000, "ppo": 1000, "posterior_sampling": 100}
OTHERS = 500  # steps of an actor of another source
ROOM = ["--env.kwargs", "{size: 5}", "--env.episode_length", "10"]
CHAIN = ["--env.id", "RandomMDP-v0", "--env.kwargs", "{num_states: 4, num_actions: 3}"]
ARMS = ["--env.id", "BernoulliBandit-v0", "--env.kwargs", "{num_tasks: 300}"]
PPO = "{n_steps: 50, batch_size: 50, n_epochs: 4, learning_rate: 1e-2}"
WORDS = {  # other than ROOM
    "psrl": [*CHAIN, "--model.encoder", "table", "--model.reward", "projection"],
    "stable_baselines3": [*ROOM, "--source.settings.arguments", PPO],
    **dict.fromkeys(BANDIT_SOURCES, ARMS),
}
LEARNERS = [name for name in SOURCES if name != "demonstrations"]  # which plays fixed policies


def rises(data: dict[str, np.ndarray]) -> np.ndarray:
    """Return how much the return of each agent rose from the first fifth to the last, float [K]."""
    steps, agents, _ = data["action"].shape
    found = []
    for k in range(agents):
        own = {name: values[:, k].T for name, values in data.items()}  # [N, T]
        whole = episodes(own["terminated"] | own["truncated"], own["reward"])
        first, last = whole.stop <= steps / 5, whole.start >= steps * 4 / 5
        found.append(whole.returns[last].mean() - whole.returns[first].mean())
    return np.array(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNERS)
def test_the_return_rises_over_a_history(name, smoke, tmp_path):
    config = smoke(tmp_path, *SOURCE_WORDS[name], *WORDS.get(name, ROOM))
    tasks = Run(config).split.all_tasks[:300]
    rise = rises(played(new_source(config, tasks), STEPS.get(name, OTHERS)))
    low, high = t.interval(LEVEL, len(rise) - 1, rise.mean(), sem(rise))
    print(f"{name}: {rise.mean():.3f} [{low:.3f}, {high:.3f}] over {len(rise)} agents")
    assert low > 0
