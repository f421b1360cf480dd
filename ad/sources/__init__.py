"""Source algorithms, whose learning is recorded. To add one: a file here, a line in ad/registry.py.

The protocol of a source, with K tasks and N = `num_envs` actors for each of them:

- `Source(settings, env, tasks, num_envs, keys)`: `settings` are one `Settings` for all K agents, or
  a list of K that agree in the fields named by `Source.SHARED` (without it, in all). `env` is a
  vector environment in SAME_STEP autoreset mode with K * N environments, those of a task side by
  side; `env.unwrapped` has the facts about tasks. `tasks` is int [K, ...], `keys` one 64-bit key
  for each agent. `ad.sources.actors.Actors` steps and records the environments, and the base class
  `ad.sources.base.Source` has `run`, `state` and `restore` for agents that act and learn by turns.
- `problem(world, tasks)`, optional and static: what the source needs and `world` does not have, as
  the rest of a sentence about the source; None if it has everything. It is asked before anything
  runs, with the tasks of the world.
- `settings_problem(settings, world, tasks, num_envs)`, optional and static: why the source cannot
  run with these `Settings` on the train tasks, as the rest of a sentence about `source.settings`;
  None if it can. It is asked before anything runs.
- `resolve(config)`, optional and static: the settings, in plain types, that the source has in the
  experiment `config`, and the experiments whose histories of the same tasks it reads, which are
  collected first. It is asked before anything runs. Raises ValueError with the rest of a sentence
  about `source.settings`.
- `files(settings, task)`, optional and static: the paths of the files that the settings, in plain
  types and resolved, name for a task. Their SHA-256 is part of what determines a history. Raises
  ValueError if one is missing.
- `TOLD`, optional: what the source is told of its task besides its observations and rewards, for
  tables of results. "nothing"; "family": all tasks of the world and how to solve each, or the
  prior from which they are drawn, but not which one it is; "optimum": the optimal policy of its
  task. None, the default, is unknown.
- `PAPER`, optional: the paper of the algorithm, for the table of sources.
- `Settings`: the source's own dataclass, the section `source.settings` of a configuration.
- `run(steps)` yields `TransitionChunk`s until every environment has taken `steps` steps. Only
  actions that a task has are taken (`Actors.action_mask`). A short life of an agent is an actor:
  many lives are many actors, `source.num_envs`, of few steps each. A chunk can hold checkpoints of
  the policies, which are stored beside the history.
- `state()` returns the state between two chunks as nested dicts of arrays, and `restore(state)`
  resumes from it with the same bits. Without a state (None) an interrupted collection starts again.
- `stopped_at`, only if an agent can fail: int [K], the number of steps from which each agent
  learned, -1 for all of them.
"""

from ad.registry import SOURCES


def told(name: str) -> str | None:
    """Return what the source called `name` is told of its task, None if that is unknown."""
    return getattr(SOURCES.load(name), "TOLD", None)
