"""Situations: named predicates on the observation of a decision, such as "goal in front".

Decisions of a situation are found in contexts, or made: the agent and what moves are put somewhere
in a grid of the world, and the world's own code observes it.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from ad.data.spec import OBSERVATIONS
from ad.errors import ConfigError
from ad.interpret.contexts import (
    RETURN_TO_GO,
    Contexts,
    context_policy,
    history_contexts,
    label_contexts,
)
from ad.methods.policy import as_tensor, observation_tensors
from ad.registry import SITUATIONS
from ad.rollout.tasks import asking_for, policy_of
from envs.minigrid.encoding import OBJECTS, encoded_cells
from envs.registry import did_you_mean
from envs.rng import derive_key
from envs.spaces import split_observation

Parts = Mapping[str, np.ndarray]  # observations [..., *shape] by part, "" for an undivided one
MOST_ROUNDS = 100  # draws of what moves, in all poses of the agent


class Situations:
    """The situations of a world: a subclass for a class of worlds, by whose name SITUATIONS has it.

    step: the name of the action that enters the cell in front of the agent. ahead: the situations
    that tell what is there.
    """

    step: ClassVar[str] = ""
    ahead: ClassVar[tuple[str, ...]] = ()

    def __init__(self, world):
        self.world = world

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of all situations, none if the observations do not tell them."""
        raise NotImplementedError

    @abstractmethod
    def holds(self, name: str, parts: Parts) -> np.ndarray:
        """Return which observations are in the situation `name`, bool [...]."""
        raise NotImplementedError

    def draw(self, name: str, task: np.ndarray, seed: int) -> Iterable:
        """Return observations of `task`, int [D], that may be in the situation `name`.

        Raises ConfigError if the world's observations cannot be made.
        """
        raise ConfigError("observations of this world can be found in rollouts, but not made")


class MiniGridSituations(Situations):
    """Situations of the agent's own view: the cells right in front of it and at its sides.

    An obstacle is a ball. The goal lies in the lower right corner of most grids, so that an agent
    in front of it that comes from above has a wall on its left, and one from the left on its right.
    """

    step = "forward"
    cells: ClassVar[dict] = {  # by situation: alternatives, each with the object of some cells
        "wall in front": ({"front": "wall"},),
        "obstacle in front": ({"front": "ball"},),
        "nothing in front": ({"front": "empty"},),
        "goal in front": ({"front": "goal"},),
        "goal in front from above": ({"front": "goal", "left": "wall"},),
        "goal in front from the left": ({"front": "goal", "right": "wall"},),
        "goal to the left": ({"left": "goal"},),
        "goal to the right": ({"right": "goal"},),
        "corner": ({"front": "wall", "left": "wall"}, {"front": "wall", "right": "wall"}),
        "free to the left": ({"left": "empty"},),
    }
    ahead = tuple(name for name in cells if "in front" in name)

    def names(self):
        """Return the names of all situations, none if the view is not observed as cells."""
        return list(self.cells) if self.world.observes_view else []

    def holds(self, name, parts):
        """Return which observations, uint8 [..., x, y, 3 or 20], are in the situation `name`."""
        cells = parts.get("image", parts.get(""))
        objects, side = encoded_cells(cells)[..., 0], cells.shape[-2]
        middle, last = side // 2, side - 1  # the agent looks up from the last row
        places = {"front": (middle, last - 1), "left": (middle - 1, last)}
        places["right"] = middle + 1, last
        found = np.zeros(objects.shape[:-2], bool)
        for alternative in self.cells[name]:
            found |= np.logical_and.reduce(
                [
                    objects[..., *places[at]] == OBJECTS.index(kind)
                    for at, kind in alternative.items()
                ]
            )
        return found

    def draw(self, name, task, seed):
        """Return what the agent observes in all poses, in random order, with balls on drawn cells.

        For an obstacle in front, one of the balls is there.
        """
        placed, rng = self.world.placed(task, seed), np.random.default_rng(seed)
        in_front = name == "obstacle in front"
        seen = (placed.observe(pose, rng, in_front) for pose in rng.permutation(placed.poses))
        return [observation for observation in seen if observation is not None]


def situations_of(world, name: str | None = None) -> Situations:
    """Return the situations of `world`, a base vector environment.

    Raises ConfigError for a world without any, and unless `name` is None or one of them.
    """
    bases = [base.__name__ for base in type(world).__mro__]
    found = next((SITUATIONS.load(base)(world) for base in bases if SITUATIONS.has(base)), None)
    known = found.names() if found else []
    if found is None or not known:
        raise ConfigError("no situations are known for this world and its observations")
    if name is not None and name not in known:
        hint = did_you_mean(name, known) or f" (known: {', '.join(known)})"
        raise ConfigError(f"unknown situation {name!r}{hint}")
    return found


def situation_names(world) -> list[str]:
    """Return the names of the situations of `world`, none if it has no situations."""
    try:
        return situations_of(world).names()
    except ConfigError:
        return []


def in_situation(world, contexts: Contexts, name: str) -> np.ndarray:
    """Return which entries observe the situation `name`, bool [B, T + 1].

    Raises ConfigError for an unknown name and for a world without situations.
    """
    role = OBSERVATIONS[0]
    parts = {
        field.removeprefix(role).removeprefix("-"): values.cpu().numpy()
        for field, values in contexts.window.items()
        if field.split("-")[0] == role
    }
    return situations_of(world, name).holds(name, parts) & contexts.valid


def made_contexts(
    subject, name: str, asked: float | Sequence[float] | np.ndarray | None, count: int
) -> Contexts:
    """Return contexts of one decision at `count` observations in the situation `name`, or fewer.

    subject: an `ad.interpret.analysis.Subject`, with the histories of its run.

    The agent is put in all poses in the grids of held-out tasks, and what moves is drawn; each
    observation is asked for each return of `asked`, None for that of the evaluation. Its time is
    drawn from the histories if the model reads one decision, else it is 0: there is no past. A
    group is an observation. Raises ConfigError for an unknown situation, or one that never occurs.
    """
    parts, task = _made(subject, name, count)
    time = np.zeros(len(task), np.int64)
    if subject.run.config.data.context_length == 1:
        histories = history_contexts(subject.dataset, subject.method, subject.model, len(task))
        time = histories.time[:, -1]
    if asked is None:
        return contexts_of(subject, parts, time, task)
    each = np.atleast_1d(np.asarray(asked, np.float64))
    row = np.tile(np.arange(len(task)), len(each))
    parts = {part: values[row] for part, values in parts.items()}
    made = contexts_of(subject, parts, time[row], task[row], each.repeat(len(task)))
    return replace(made, group=row, groups=made.groups[: len(task)])


def _made(subject, name: str, count: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return observations [M, ...] in the situation `name`, and the number of their task, [M]."""
    world, tasks, found = subject.run.world, subject.run.split.held_out_tasks, []
    situations = situations_of(world, name)
    for number in range(MOST_ROUNDS):
        index = number % len(tasks)
        seed = derive_key(0, "interpret", name, number) >> 1
        for observation in situations.draw(name, tasks[index], seed):
            parts = split_observation(world.single_observation_space, observation)
            if situations.holds(name, parts):
                found.append((parts, index))
        if len(found) >= count or (not found and number >= len(tasks)):
            break
    if not found:
        raise ConfigError(f"the situation {name!r} does not occur in any pose of the agent")
    observations, task = zip(*found[:count], strict=True)
    parts = {part: np.stack([one[part] for one in observations]) for part in observations[0]}
    return parts, np.array(task)


def contexts_of(
    subject, parts: Parts, time: np.ndarray, task: np.ndarray, asked: np.ndarray | None = None
) -> Contexts:
    """Return contexts of one decision, at the observations `parts` [M, ...] and `time`, int64 [M].

    task: int64 [M], indices into the held-out tasks. asked: float64 [M], the return that each asks
    for, None for that of the evaluation. Each context is a group.
    """
    config = subject.run.config if asked is None else asking_for(subject.run.config, asked.tolist())
    policy = context_policy(policy_of(config, subject.method, subject.model)(len(time)))
    policy.enter(observation_tensors(parts, policy.device), as_tensor(time, policy.device))
    arrays = {name: values.cpu().numpy().copy() for name, values in policy.window().items()}
    if asked is None and RETURN_TO_GO in arrays:
        asked = arrays[RETURN_TO_GO][:, -1].astype(np.float64)
    arrays |= {"episode": np.zeros_like(arrays["step"]), "decided": arrays["valid"].copy()}
    contexts = label_contexts(arrays, task, subject.run.split.held_out_tasks, subject.model)
    groups = [str(number) for number in range(len(task))]
    own = {"group": np.arange(len(task)), "groups": groups, "unit": "context"}
    return replace(contexts, asked=asked, **own)
