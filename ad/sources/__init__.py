"""Source algorithms: whose learning is recorded. One file and one line here add another.

A source is built as `Source(settings, env, tasks, num_envs, keys, world)`: `settings` are those of
all agents, or a list of one for each, which agree in what the class names as `SHARED`; `env` has
len(tasks) × num_envs lanes in SAME_STEP autoreset mode, `keys` are one 64-bit key a task, `world`
knows the optimum. It offers `run(steps)`, an iterator of `Block`s up to `steps` steps of every
lane, and has its own `Settings` dataclass. `state()`, nested dicts of arrays, is all that depends
on the past between two blocks, and `restore(state)` goes on from there with the same bits; where
the state is None (a foreign world cannot tell its own), an interrupted collection starts again. A
source whose agents can fail has `stopped_at`, int [K]: the steps that agent k learned from, -1: all
of them.
"""
