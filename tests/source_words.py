"""The words of a command line that choose each registered source, learning in short histories."""

from ad.registry import SOURCES

SETTINGS = {
    "stable_baselines3": {"arguments": "{n_steps: 50, batch_size: 200, n_epochs: 1}"},
    "posterior_sampling": {"every_step": "true", "window": "8"},
}
BANDIT_SOURCES = ("thompson_sampling", "ucb")  # they learn in worlds of one state only
ROOM_SOURCES = tuple(name for name in SOURCES if name not in BANDIT_SOURCES)
BANDIT = ("--env.id", "BernoulliBandit-v0", "--env.kwargs", "{num_tasks: 6}")
SOURCE_WORDS = {
    name: [
        *("--source.algorithm", name),
        *(
            word
            for setting, value in SETTINGS.get(name, {}).items()
            for word in (f"--source.settings.{setting}", value)
        ),
        *(BANDIT if name in BANDIT_SOURCES else ()),
    ]
    for name in SOURCES
}
