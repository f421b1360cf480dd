"""Presets: worlds of papers by name, each a world with all its settings and an episode length.

The name of a preset stands wherever an id stands: `envs.make("DarkRoom-9x9-Dense-v1")`, `make_vec`,
`make_base`, `gymnasium.make`, and `env.id` of an experiment. A preset never changes: a correction
is a new version, as with the ids of Gymnasium. So it refuses a setting or an episode length that
contradicts it. To add one: an entry of PRESETS that sets every setting of its world.
"""

from dataclasses import dataclass
from types import EllipsisType

EPISODE_LENGTH = 20  # env steps, where neither the caller nor a preset says


@dataclass(frozen=True)
class Preset:
    """A world of `envs.REGISTRY`, its settings, and the env steps of its episodes."""

    world: str
    episode_length: int
    kwargs: dict


def _room(
    size: int,
    episode_length: int,
    start: str = "center",
    reward: str = "every_step",
    terminate: bool = False,
) -> Preset:
    """Return the preset of a Dark Room whose goals are all cells, the start among them."""
    kwargs = {"size": size, "start": start, "reward": reward, "terminate": terminate}
    return Preset("DarkRoom-v0", episode_length, kwargs | {"goal_on_start": True})


PRESETS = {
    # Laskin et al. 2022 (arXiv 2210.14215), section 4. The number of goals of the hard room is not
    # printed: as in the 9 x 9 room they are all cells.
    "DarkRoom-9x9-Dense-v1": _room(9, 20),
    "DarkRoom-Hard-17x17-v1": _room(17, 20, reward="once"),
    # Tarasov et al. 2025 (arXiv 2502.17666): the goal ends the episode.
    "DarkRoom-9x9-Terminating-v1": _room(9, 20, terminate=True),
    "DarkRoom-19x19-Terminating-v1": _room(19, 100, terminate=True),
    # Chen et al. 2025 (arXiv 2505.15143).
    "DarkRoom-15x15-Dense-v1": _room(15, 50),
    "DarkRoomPermuted-9x9-v1": Preset("DarkRoomPermuted-v0", 50, {"size": 9}),
    # Lee et al. 2023 (arXiv 2306.14892).
    "DarkRoom-10x10-Dense-v1": _room(10, 100, start="corner"),
    # Chen and Paternain 2024 (arXiv 2410.19982), with the start of Lee et al., whose rooms it has.
    "DarkRoom-7x7-Dense-v1": _room(7, 49, start="corner"),
    # After Sinii et al. 2023 (arXiv 2312.13327), with all actions in all tasks.
    "DarkRoomSequences-9x9-v1": Preset(
        "DarkRoomSequences-v0", 20, {"size": 9, "goal_on_start": True}
    ),
}


def resolve(env_id: str, kwargs: dict) -> tuple[str, dict]:
    """Return the id of the world that `env_id` names, and `kwargs` with a preset's settings.

    Raises ValueError for a setting that contradicts the preset.
    """
    if env_id not in PRESETS:
        return env_id, kwargs
    preset = PRESETS[env_id]
    for name, value in preset.kwargs.items():
        if kwargs.get(name, value) != value:
            raise ValueError(
                f"{env_id} has {name} {value!r}, not {kwargs[name]!r}: "
                f"other settings are for {preset.world}"
            )
    return preset.world, preset.kwargs | kwargs


def resolve_length(env_id: str, episode_length: int | EllipsisType | None = ...) -> int | None:
    """Return the env steps of an episode, None for no limit; ... stands for those of a preset.

    Raises ValueError for a length that contradicts the preset `env_id`.
    """
    own = PRESETS[env_id].episode_length if env_id in PRESETS else None
    if episode_length is ...:
        return own or EPISODE_LENGTH
    if own not in (None, episode_length):
        world = PRESETS[env_id].world
        raise ValueError(
            f"{env_id} has episodes of {own} steps, not {episode_length}: others are for {world}"
        )
    return episode_length
