"""The missions of a family, as numbers or as words, and how long those of BabyAI can become.

Chevalier-Boisvert et al. 2019, "BabyAI: A Platform to Study the Sample Efficiency of Grounded
Language Learning", section 3.2. A level of BabyAI declares neither its missions nor, before a
reset, its time limit. Both follow from the instructions that it can build.
"""

import itertools
from dataclasses import dataclass

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, Space

from envs.minigrid.encoding import WORDS, word_numbers

MAX_MISSIONS = 2**16
# Instructions by class: the words beside the descriptions of objects, and the descriptions.
ACTIONS = {"GoToInstr": (2, 1), "OpenInstr": (1, 1), "PickupInstr": (2, 1), "PutNextInstr": (3, 2)}
DESCRIPTION, LOCATION = 3, 4  # words: the red ball; in front of you
KINDS = {"goto": "GoToInstr", "open": "OpenInstr", "pickup": "PickupInstr", "action": ""}
KINDS |= {"putnext": "PutNextInstr", "and": "AndInstr", "seq": "AfterInstr"}  # of a generator


@dataclass(frozen=True)
class Missions:
    """The missions of a family: the number of each text, or the most words of one."""

    numbers: dict[str, int]
    words: int = 0

    @classmethod
    def find(cls, env: gymnasium.Env, kind: bool | str) -> "Missions":
        """Return the missions of `env` and its members for the setting `kind`.

        Raises ValueError for more than MAX_MISSIONS texts, for a word that is not in WORDS, and for
        numbered missions of BabyAI.
        """
        longest = [_longest(member)[0] for member in members(env) if is_babyai(member)]
        texts = dict.fromkeys(itertools.chain(*map(_texts, members(env)))) if kind else {}
        if kind == "words":
            return cls({}, max(1, *longest, *(len(word_numbers(text)) for text in texts)))
        if kind and longest:
            raise ValueError("the missions of BabyAI have no numbers: mission must be words")
        return cls({text: number for number, text in enumerate(texts)})

    @classmethod
    def union(cls, missions: list["Missions"]) -> "Missions":
        """Return the missions of all of `missions`."""
        texts = dict.fromkeys(text for one in missions for text in one.numbers)
        return cls({text: n for n, text in enumerate(texts)}, max(one.words for one in missions))

    @property
    def space(self) -> Space:
        """The space of a mission: its number, or those of its words, uint8 [words]."""
        if self.numbers:
            return Discrete(len(self.numbers))
        return Box(0, len(WORDS), (self.words,), np.uint8)

    def encode(self, text: str) -> int | np.ndarray:
        """Return a mission as a value of `space`. Raises ValueError for one that is not."""
        if self.numbers:
            if text not in self.numbers:
                raise ValueError(f"{text!r} is no mission that this environment has declared")
            return self.numbers[text]
        numbers = word_numbers(text)
        if len(numbers) > self.words:
            raise ValueError(f"the mission {text!r} has more than {self.words} words")
        return np.array(numbers + [0] * (self.words - len(numbers)), np.uint8)


def members(env: gymnasium.Env) -> list:
    """Return the `MiniGridEnv` inside of `env`, or of each member of a mixture."""
    return [member.unwrapped for member in getattr(env.unwrapped, "members", [env])]


def is_babyai(member) -> bool:
    """Return whether a `MiniGridEnv` is a level of BabyAI."""
    from minigrid.envs.babyai.core.roomgrid_level import RoomGridLevel

    return isinstance(member, RoomGridLevel)


def time_limit(member) -> int:
    """Return the most steps of an episode of a `MiniGridEnv`, over all its missions."""
    if not is_babyai(member) or member.fixed_max_steps:
        return member.max_steps
    return _longest(member)[1] * member.room_size**2 * member.num_rows * member.num_cols


def _longest(level) -> tuple[int, int]:
    """Return the most words and the most walks to objects that a mission of a level has."""
    used = _instructions(level)
    located = LOCATION if "LOC_NAMES" in used else 0
    actions = [counts for name, counts in ACTIONS.items() if name in used]
    words = max(fixed + count * (DESCRIPTION + located) for fixed, count in actions)
    walks = max(count for _, count in actions)
    if "AndInstr" in used:  # two actions: "and"
        words, walks = 2 * words + 1, 2 * walks
    if used & {"BeforeInstr", "AfterInstr"}:  # two of these: "then", "after you"
        words, walks = 2 * words + (2 if "AfterInstr" in used else 1), 2 * walks
    return words, walks


def _instructions(level) -> set[str]:
    """Return which classes of instructions a level may build, and LOC_NAMES if it tells places.

    A generator lists them in its attributes, the code of every other level names them; if it names
    none, they are all that the grammar has.
    """
    from minigrid.envs.babyai.core.levelgen import LevelGen
    from minigrid.envs.babyai.core.roomgrid_level import RoomGridLevel

    if isinstance(level, LevelGen):
        used = {KINDS[kind] for kind in (*level.action_kinds, *level.instr_kinds)}
        used |= {"AndInstr"} if "AfterInstr" in used else set()
        return used | ({"LOC_NAMES"} if level.locations else set())
    own = [vars(base) for base in type(level).__mro__ if base not in RoomGridLevel.__mro__]
    codes = [getattr(value, "__code__", None) for names in own for value in names.values()]
    used = {name for code in codes if code for name in code.co_names}
    return used if used & ACTIONS.keys() else {*ACTIONS, "AndInstr", "AfterInstr", "LOC_NAMES"}


def _texts(member) -> list[str]:
    """Return every mission that a `MiniGridEnv` declares, none for a level of BabyAI."""
    space = member.observation_space["mission"]
    words = space.ordered_placeholders or []
    if np.prod([len(choices) for choices in words]) > MAX_MISSIONS:
        raise ValueError(f"it has more than {MAX_MISSIONS} missions")
    lines = [] if is_babyai(member) else itertools.product(*words)
    return [space.mission_func(*line) for line in lines]
