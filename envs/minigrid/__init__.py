"""MiniGrid: small rooms that an agent sees in part, in which it turns and walks.

Chevalier-Boisvert et al. 2023, "Minigrid & Miniworld: Modular & Customizable Reinforcement Learning
Environments for Goal-Oriented Tasks". Every id `MiniGrid-...` and `BabyAI-...` of the package
(extra `minigrid`) is an environment of this suite, BabyAI's with their missions as words; rewards
are the package's, mostly 1 - 0.9 t / T for a success at step t of at most T = `max_steps`.
`env.kwargs` hold the settings of `envs.minigrid.observation.Settings` (view, observation,
direction, mission, pixels, seed) and arguments of the id.

A task is a dict of such settings, e.g. `env.tasks: [{seed: 1}, {seed: 2}]`. With a seed every
episode of the task has the same layout (and obstacles that move, move the same way as long as the
actions are the same); without one each reset has a new layout. `id` makes the task a member of a
family: `{id: MiniGrid-Empty-8x8-v0}`. Tasks may have different numbers of actions, as their
masks show, but share one observation space.

README.md beside this file has a table of the families. `HiddenObject-v0` (`hidden_object`) is a
world of this suite with the rooms, actions and encoding of MiniGrid, and does without the package.
"""
