"""Source algorithms: whose learning is recorded. One file and one line here add another.

A source is built as `Source(settings, env, tasks, num_envs, keys, world)`: `env` has len(tasks) ×
num_envs lanes in SAME_STEP autoreset mode, `keys` are one 64-bit key a task, `world` knows the
optimum. It offers `run(steps)`, an iterator of `Block`s that together hold `steps` transitions of
every lane, and has its own `Settings` dataclass.
"""

from ad.registry import Registry

SOURCES = Registry(
    "source algorithm",
    {
        "a2c": "ad.sources.a2c:A2C",
        "noise_distillation": "ad.sources.noise_distillation:NoiseDistillation",
    },
)
