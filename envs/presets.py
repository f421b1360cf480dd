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
    size: int | list[int],
    episode_length: int,
    start: str = "center",
    reward: str = "every_step",
    terminate: bool = False,
) -> Preset:
    """Return the preset of a Dark Room whose goals are all cells, the start among them."""
    kwargs = {"size": size, "start": start, "reward": reward, "terminate": terminate}
    return Preset("DarkRoom-v0", episode_length, kwargs | {"goal_on_start": True})


def _key_room(
    size: int | list[int], episode_length: int, start: str, door_pays: str, see_key: bool = False
) -> Preset:
    """Return the preset of a Key-to-Door."""
    kwargs = {"size": size, "start": start, "see_key": see_key, "door_pays": door_pays}
    return Preset("KeyToDoor-v0", episode_length, kwargs)


def _bandit(world: str, arms: int, pulls: int, num_tasks: int, **kwargs) -> Preset:
    """Return the preset of a bandit of which an episode has all `pulls`."""
    drawn = {"arms": arms, "num_tasks": num_tasks, "family_seed": 0}
    return Preset(world, pulls, drawn | kwargs)


def _mdp(world: str, states: int, episode_length: int, num_tasks: int, **kwargs) -> Preset:
    """Return the preset of a family of tabular MDPs with five actions."""
    drawn = {"num_states": states, "num_actions": 5, "num_tasks": num_tasks, "family_seed": 0}
    return Preset(world, episode_length, drawn | kwargs)


TRAIN_TASKS = 1000  # of a family whose paper draws train tasks without end, beside its test tasks
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
    # Schmied et al. 2024 (arXiv 2410.07071), with 80 train and 20 held-out goals of all cells. The
    # text has 200 steps for the second one in one place and 400 in another.
    "DarkRoom-20x20-Dense-v1": _room(20, 400, start="corner"),
    "DarkRoom-40x20-Dense-v1": _room([40, 20], 800, start="corner"),
    # After Sinii et al. 2023 (arXiv 2312.13327), with all actions in all tasks.
    "DarkRoomSequences-9x9-v1": Preset(
        "DarkRoomSequences-v0", 20, {"size": 9, "goal_on_start": True}
    ),
    # Laskin et al. 2022, section 4, and Tarasov et al. 2025. A model of single steps has to see
    # whether the key is held.
    "KeyToDoor-9x9-v1": _key_room(9, 50, "random", "once"),
    "KeyToDoor-9x9-SeeKey-v1": _key_room(9, 50, "random", "once", see_key=True),
    "KeyToDoor-13x13-v1": _key_room(13, 100, "random", "once"),
    "KeyToDoor-13x13-SeeKey-v1": _key_room(13, 100, "random", "once", see_key=True),
    # After Schmied et al. 2024, who do not print the horizons: those of their dark rooms.
    **{
        f"KeyToDoor-{name}-Dense{'-SeeKey' if see_key else ''}-v1": _key_room(
            size, episode_length, "corner", "every_step", see_key
        )
        for name, size, episode_length in (
            ("10x10", 10, 100),
            ("20x20", 20, 400),
            ("40x20", [40, 20], 800),
        )
        for see_key in (False, True)
    },
    # Duan et al. 2016 (arXiv 1611.02779), section 3.1: total rewards over 1,000 test tasks.
    **{
        f"BernoulliBandit-{arms}arms-{pulls}pulls-v1": _bandit(
            "BernoulliBandit-v0", arms, pulls, TRAIN_TASKS + 1000, drift=0.0
        )
        for arms in (5, 10)
        for pulls in (10, 100, 500)
    },
    # Lee et al. 2023, with 200 test tasks.
    "GaussianBandit-5arms-500pulls-v1": _bandit(
        "GaussianBandit-v0", 5, 500, TRAIN_TASKS + 200, sd=0.3
    ),
    # After Laskin et al. 2022, who do not print what the arms pay.
    "OddEvenBandit-10arms-100pulls-v1": _bandit(
        "OddEvenBandit-v0",
        10,
        100,
        TRAIN_TASKS,
        min_arms=None,
        num_held_out=100,
        parity_probability=0.95,
        drift=0.0,
    ),
    # Sinii et al. 2023, with 100 test tasks.
    "OddEvenBandit-4to20arms-300pulls-v1": _bandit(
        "OddEvenBandit-v0",
        20,
        300,
        TRAIN_TASKS,
        min_arms=4,
        num_held_out=100,
        parity_probability=0.95,
        drift=0.0,
    ),
    # Duan et al. 2016, section 3.2: 1,000 test tasks.
    "RandomMDP-10x5-v1": _mdp("RandomMDP-v0", 10, 10, TRAIN_TASKS + 1000, reward_noise=1.0),
    # After Wang et al. 2025 (arXiv 2502.02869), with 64 test tasks. An episode has the fewest steps
    # that their environments draw for it.
    "Garnet-16x5x2-v1": _mdp("Garnet-v0", 16, 100, TRAIN_TASKS + 64, branching=2, reward_noise=0.1),
    "Garnet-64x5x2-v1": _mdp("Garnet-v0", 64, 256, TRAIN_TASKS + 64, branching=2, reward_noise=0.1),
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
    """Return the env steps of an episode, None for no limit; ... is the length of the preset.

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
