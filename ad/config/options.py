"""The options of a verb: how one is declared, and how the words of a command line are read."""

import itertools
import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ad.errors import Problem


def flag(word: str) -> bool:
    """Return whether `word` is true. Raises ValueError unless it is true or false."""
    if word not in ("true", "false"):
        raise ValueError(f"must be true or false, not {word!r}")
    return word == "true"


def path(word: str) -> Path | None:
    """Return `word` as a path, None if it is empty."""
    return Path(word) if word else None


def names(word: str) -> list[str]:
    """Return the names in a text like "attention, lens", without empty ones."""
    return [name.strip() for name in word.split(",") if name.strip()]


def titles(word: str) -> list[str]:
    """Return the titles in a text like "Dark Room; Water Maze", without empty ones."""
    return [title.strip() for title in word.split(";") if title.strip()]


def whole_numbers(word: str) -> list[int]:
    """Return the whole numbers in a text like "0,1,2", none if it is empty. Raises ValueError."""
    if word and not re.fullmatch(r"\d{1,9}(,\d{1,9})*", word):
        raise ValueError(f"must be whole numbers with commas between, not {word!r}")
    return [int(number) for number in word.split(",") if word]


def numbers(word: str) -> list[float]:
    """Return the numbers in a text like "-1, 0.95", none if it is empty. Raises ValueError."""
    try:
        values = [float(number) for number in names(word)]
    except ValueError:
        values = [math.nan]
    if not all(map(math.isfinite, values)):
        raise ValueError(f"must be numbers with commas between, not {word!r}")
    return values


def port(word: str) -> int:
    """Return the number of a port. Raises ValueError."""
    if not re.fullmatch(r"\d{1,5}", word) or int(word) >= 2**16:
        raise ValueError(f"must be a whole number from 0 to 65535, not {word!r}")
    return int(word)


def minutes(word: str) -> float:
    """Return a number of minutes above 0. Raises ValueError."""
    if not re.fullmatch(r"\d{1,4}(\.\d+)?", word) or not float(word):
        raise ValueError(f"must be a number of minutes, not {word!r}")
    return float(word)


def shard(word: str) -> tuple[int, int]:
    """Return the number of a shard and of all shards from a text like "1/2". Raises ValueError."""
    match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", word)
    number, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= count:
        raise ValueError(f"must be 1/2, 2/2 or the like, not {word!r}")
    return number, count


@dataclass(frozen=True)
class Option:
    """An option of a verb, `--name word`, and the argument of the verb's function that it is."""

    name: str
    about: str  # its line of --help
    default: str | None = ""  # the word without the option; None: the option must be given
    read: Callable[[str], Any] = str  # word -> value; raises ValueError with the rest of a sentence
    argument: str = ""  # name of the argument, if it is not `name`
    for_jobs: bool = True  # whether the jobs that a verb starts are given the option, too
    bare: bool = False  # whether its word may stand without --name: the next such option gets it


def read_words(
    argv: Sequence[str], bare: Iterable[str] = ()
) -> tuple[dict[str, str], list[Problem]]:
    """Return `--name word` and `--name=word` as a dict, and the problems of all other words.

    The last of repeated options counts. A word without an option is that of the first option in
    `bare` that is not given.
    """
    words, options, problems, without = deque(argv), {}, [], []
    while words:
        word = words.popleft()
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--"):
            without.append(word)
        elif equals:
            options[name] = value
        elif words and not words[0].startswith("--"):
            options[name] = words.popleft()
        else:
            problems.append(Problem(word, "needs a value"))
    bare = list(bare)
    free = [name for name in bare if name not in options]
    options |= zip(free, without, strict=False)
    taken = " and ".join(
        f"--{name} is {options[name]!r} already" for name in bare if name in options
    )
    for word in without[len(free) :]:
        text = f"is one word too many: {taken}" if bare else "is not an option"
        problems.append(Problem(repr(word), f"{text}; an option is --name value"))
    return options, problems


def take_options(
    declared: Iterable[Option], words: dict[str, str], problems: list[Problem]
) -> dict[str, Any]:
    """Remove the `declared` options from `words` and return argument -> value.

    Appends a problem for each option whose word cannot be read, or that is missing.
    """
    values = {}
    for option in declared:
        word = words.pop(option.name, option.default)
        if word is None:
            problems.append(Problem(f"--{option.name}", f"is missing: {option.about}"))
            continue
        try:
            values[option.argument or option.name] = option.read(word)
        except ValueError as error:
            problems.append(Problem(f"--{option.name}", str(error)))
    return values


def unknown_options(words: Iterable[str], known: Iterable[str]) -> Iterator[Problem]:
    """Yield a problem for each of `words`, with a hint if one of the `known` options is close."""
    from envs.registry import did_you_mean  # imports gymnasium

    known = list(known)
    for word in words:
        hint = did_you_mean(word, known).replace("mean ", "mean --")
        yield Problem(f"--{word}", f"is not an option{hint or '; --help lists the options'}")


def help_topic(argv: Sequence[str]) -> str | None:
    """Return the word after --help, "" without one, and None if `argv` do not ask for help."""
    for word, after in itertools.pairwise([*argv, "--"]):
        if word in ("-h", "--help"):
            return "" if after.startswith("-") else after
    return None
