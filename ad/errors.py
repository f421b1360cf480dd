"""Expected failures: each has a message of one sentence, an exit code, and no traceback."""

from typing import NamedTuple


class ADError(Exception):
    """Base class of expected failures; `exit_code` is the exit code of the process."""

    exit_code = 1


class ConfigError(ADError):
    """Bad input or configuration; the message names every problem."""

    exit_code = 2


class SettingError(ConfigError):
    """A setting that is refused: `path` is its dotted path, `text` the rest of the sentence."""

    def __init__(self, path: str, text: str):
        super().__init__(f"{path} {text}")
        self.path, self.text = path, text

    def __reduce__(self):
        return type(self), (self.path, self.text)  # from one process to another


class MachineError(ADError):
    """A failure of the machine: a full disk, no permission, a missing program or device."""

    exit_code = 3


class LockedError(MachineError):
    """A folder that another process is writing to."""


class CorruptError(ADError):
    """Data on disk that is not what was written."""

    exit_code = 4


class NumericError(ADError):
    """A computation whose numbers are not finite, even after a roll-back."""

    exit_code = 5


class Problem(NamedTuple):
    """A problem of the setting at the dotted `path`; `text` is the rest of a sentence about it."""

    path: str
    text: str


def printable(text: str) -> str:
    """Return `text` without control characters: a stranger wrote it, and a terminal obeys them."""
    return "".join(letter for letter in text if letter.isprintable())


def is_out_of_memory(error: Exception) -> bool:
    """Return whether Python, NumPy or PyTorch raised an error because memory was not enough."""
    messages = ("out of memory", "allocate memory")
    return isinstance(error, MemoryError) or any(text in str(error) for text in messages)
