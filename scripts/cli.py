"""What every verb does around its work: read the configuration, run, end with an exit code.

A verb is a module `scripts/<verb>.py` with a `main(config, flag)` and, as its last lines,

    if __name__ == "__main__":
        run_verb(main)

It imports what is heavy (torch, numba) inside `main`, so that a bad configuration is refused in a
fraction of a second. Exit codes: 0 done, 2 bad input, 3 the machine, 4 corrupt data, 5 numeric
failure, 130 interrupted, 143 terminated. Anything else is a bug and shows its traceback. Only one
process at a time works in a run's folder; a second one ends with 3.
"""

import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn

from ad.config.help import usage
from ad.config.parser import load
from ad.config.schema import Experiment
from ad.errors import ADError, ConfigError, MachineError
from ad.runtime import console
from ad.runtime import signals as interruption
from ad.runtime.console import open_streams
from ad.runtime.locks import locked

Main = Callable[[Experiment, bool], Any]


def run_verb(main: Main, flag: str = "fresh") -> NoReturn:
    """Run `main(config, flag)` as the command line's words ask, and exit; --<flag> is its flag."""
    run_words(lambda words: exit_code(main, words, flag))


def run_words(work: Callable[[Sequence[str]], int], about: str = "") -> NoReturn:
    """Exit with the code that `work` makes of the command line's words; --help begins `about`."""
    open_streams()
    words = sys.argv[1:]
    if {"-h", "--help"} & set(words):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # so that `--help | head` ends quietly
        print(about + usage())
        sys.exit(0)
    interruption.install()
    sys.exit(work(words))


def exit_code(main: Main, argv: Sequence[str], flag: str = "fresh") -> int:
    """Run `main(config, flag)` as `argv` asks; a failure that is expected goes to stderr."""

    def verb() -> None:
        invocation = load(argv, flag)
        with locked_runs([invocation.config]):
            main(invocation.config, invocation.flag)

    return guarded(verb)


def guarded(work: Callable[[], None]) -> int:
    """The exit code of `work()`; an expected failure is a sentence on stderr."""
    try:
        work()
        return 0
    except ADError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on from here", 130)
    except interruption.Terminated:
        return _fail("terminated; the same command goes on from here", 143)
    except OSError as error:
        if error.errno is None:  # raised by hand
            raise
        where = f": {error.filename}" if error.filename else ""
        return _fail(f"{error.strerror}{where}", MachineError.exit_code)


@contextmanager
def locked_runs(configs: Sequence[Experiment]) -> Iterator[None]:
    """The only process in the folders of these runs."""
    with ExitStack() as locks:
        for config in configs:
            locks.enter_context(locked(config.folder))
        yield


def numbers(option: str, word: str) -> list[int]:
    """The whole numbers of a word like 0,1,2. Raises ConfigError."""
    if not re.fullmatch(r"\d{1,9}(,\d{1,9})*", word):
        raise ConfigError(f"{option} must be whole numbers with commas between, not {word!r}")
    return [int(number) for number in word.split(",")]


def _fail(sentence: str, code: int) -> int:
    console.error(sentence)
    return code
