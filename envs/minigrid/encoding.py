"""The encoding of MiniGrid's cells, three numbers each or one-hot, and of the words of missions.

Chevalier-Boisvert et al. 2023, "Minigrid & Miniworld: Modular & Customizable Reinforcement Learning
Environments for Goal-Oriented Tasks", section 3. The tables of `minigrid.core.constants` are
written out, so that worlds of this suite can use them without the package. An encoded view is
uint8 [..., x, y, 3], (object, color, state): x runs to the right and y downwards. A mission is
uint8 [L]: the numbers of its words, from 1 by their places in WORDS, then 0.
"""

import numpy as np

from envs.spaces import Array, Part

OBJECTS = (
    *("unseen", "empty", "wall", "floor", "door", "key"),
    *("ball", "box", "goal", "lava", "agent"),
)
COLORS = ("red", "green", "blue", "purple", "yellow", "grey")
STATES = ("open", "closed", "locked")
# The words of BabyAI's grammar (Chevalier-Boisvert et al. 2019, section 3.2), then the further ones
# of MiniGrid's missions. Models know a word by its number, so a new one is put at the end.
VOCABULARY = (
    "go to open pick up put next the a red green blue purple yellow grey object box ball key door "
    "on your left right in front of you behind and then after avoid at end fetch find from get "
    "goal hallway lava matching maze must near opening reach room rooms square traverse unlock use"
)
WORDS = tuple(VOCABULARY.split())
SIZES = (len(OBJECTS), len(COLORS), len(STATES))
VIEWS = (3, 5, 7, 9)  # sides of the square that an agent sees, in cells
NUM_PLANES = sum(SIZES)  # of a one-hot cell
HIGHEST = max(SIZES) - 1  # number in an encoded cell
_TABLES = [np.eye(size, dtype=np.uint8) for size in SIZES]


def has_cells(part: Part) -> bool:
    """Return whether `part` is a picture [H, W, 3] of encoded cells: by its bound."""
    if not isinstance(part, Array) or len(part.shape) != 3 or part.shape[2] != len(SIZES):
        return False
    return np.dtype(part.dtype).kind in "iu" and part.high is not None and part.high <= HIGHEST


def shows_cells(part: Part) -> bool:
    """Return whether `part` is a picture of cells, encoded [x, y, 3] or one-hot [x, y, 20]."""
    return has_cells(part) or (isinstance(part, Array) and part.shape[2:] == (NUM_PLANES,))


def one_hot(cells: np.ndarray) -> np.ndarray:
    """Return encoded `cells`, uint8 [..., 3], as one-hot vectors, uint8 [..., 20].

    The planes are 11 objects, 6 colors and 3 states. Raises ValueError for a cell with another one.
    """
    try:
        planes = [table[cells[..., index]] for index, table in enumerate(_TABLES)]
    except IndexError as error:
        raise ValueError("a cell has an object, color or state that has no plane") from error
    return np.concatenate(planes, axis=-1)


def cells_in(depth: int, cells: np.ndarray) -> np.ndarray:
    """Return encoded `cells` [..., 3] as a picture of `depth` numbers shows them: 3, or 20."""
    return one_hot(cells) if depth == NUM_PLANES else cells


def from_one_hot(planes: np.ndarray) -> np.ndarray:
    """Return the encoded cells, uint8 [..., 3], of one-hot `planes` [..., 20]."""
    groups = np.split(planes, np.cumsum(SIZES)[:-1], axis=-1)
    return np.stack([group.argmax(-1) for group in groups], axis=-1).astype(np.uint8)


def encoded_cells(cells: np.ndarray) -> np.ndarray:
    """Return the encoded cells [..., 3] of encoded ones, or of one-hot ones [..., 20]."""
    return from_one_hot(cells) if cells.shape[-1] == NUM_PLANES else cells


def has_words(part: Part) -> bool:
    """Return whether `part` is a mission, an array [L] of the numbers of words: by its bound."""
    is_line = isinstance(part, Array) and len(part.shape) == 1
    return is_line and np.dtype(part.dtype).kind in "iu" and part.high == len(WORDS)


def word_numbers(text: str) -> list[int]:
    """Return the numbers of the words of a mission. Raises ValueError for one not in WORDS."""
    words = text.replace(",", " ").split()
    if unknown := [word for word in words if word not in WORDS]:
        raise ValueError(
            f"{unknown[0]!r} in {text!r} is no word of BabyAI's or MiniGrid's missions"
        )
    return [WORDS.index(word) + 1 for word in words]


def words_of(numbers: np.ndarray) -> str:
    """Return the words of a mission that is given by their numbers [L]: "go to the red ball"."""
    return " ".join(WORDS[number - 1] for number in numbers if number)
