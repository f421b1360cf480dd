"""The command line: `ad <verb> --config_path configs/<experiment>.yaml [--section.field value]`.

`python -m scripts.<verb>` runs the same verb from the root of a checkout. A verb is a function of
the arguments after its name. VERBS names all: those of one experiment are in `ad.verbs`, those of
many runs in `ad.sweeps.verbs`, and those that print tables in `ad.reporting.verbs`.

Exit codes: 0 done, 2 bad input or configuration, 3 the machine, 4 corrupt data, 5 numeric failure,
130 interrupted, 143 terminated. Any other failure is a bug and shows its traceback. Only one
process at a time works in a run's folder; a second one exits with 3.
"""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from ad.errors import ADError, ConfigError, MachineError
from ad.exchange.verbs import import_histories
from ad.reporting.verbs import sources, totals, worlds
from ad.runtime import signals
from ad.sweeps.verbs import findings, leaderboard, results, study, sweep, table
from ad.verbs import (
    Verb,
    app,
    asks_for_help,
    collect,
    evaluate,
    export_histories,
    inspect_model,
    of_experiment,
    of_run,
    print_text,
    record,
    release,
    report,
    run_all,
    seeds,
    synthesize,
    train,
    tune,
    verify,
)


def main() -> NoReturn:
    """Run the verb that the first command-line argument names, and exit: the command `ad`."""
    run_and_exit(_dispatch)


def run_script(name: str) -> NoReturn:
    """Run the verb called `name` on the command-line arguments, and exit."""
    run_and_exit(VERBS[name])


def run_and_exit(verb: Verb) -> NoReturn:
    """Call `verb` with the command-line arguments and exit with its code."""
    signals.install()
    _open_closed_streams()
    sys.exit(exit_code(verb, sys.argv[1:]))


def exit_code(verb: Verb, argv: Sequence[str]) -> int:
    """Call `verb(argv)` and return the exit code; an expected failure is a sentence on stderr."""
    try:
        verb(argv)
        return 0
    except ADError as error:
        sentence, code = str(error), error.exit_code
    except KeyboardInterrupt:
        sentence, code = "interrupted; run the same command to resume", 130
    except signals.Terminated:
        sentence, code = "terminated; run the same command to resume", 143
    except OSError as error:
        if error.errno is None:  # raised by hand: a bug
            raise
        file = f": {error.filename}" if error.filename else ""
        sentence, code = f"{error.strerror}{file}", MachineError.exit_code
    from ad.runtime import console

    console.error(sentence)
    return code


VERBS: dict[str, Verb] = {
    "collect": of_run(collect, discards=True),
    "train": train,
    "evaluate": of_run(evaluate),
    "record": of_run(record),
    "report": of_run(report),
    "run": of_run(run_all, discards=True),
    "seeds": seeds,
    "table": table,
    "study": study,
    "leaderboard": leaderboard,
    "sweep": sweep,
    "worlds": worlds,
    "sources": sources,
    "totals": totals,
    "results": results,
    "tune": tune,
    "verify": of_experiment(verify, flag="repair"),
    "release": of_run(release),
    "export_histories": export_histories,
    "import_histories": import_histories,
    "synthesize": of_experiment(synthesize),
    "inspect": inspect_model,
    "findings": findings,
    "app": app,
}


def _dispatch(argv: Sequence[str]) -> None:
    """Run the verb that `argv[0]` names. Raises ConfigError if there is no such verb."""
    name, *rest = argv or ["--help"]
    if asks_for_help([name]):
        return print_text(_list_of_verbs())
    if name not in VERBS:
        from envs.registry import did_you_mean

        hint = did_you_mean(name, VERBS) or f" (verbs: {', '.join(VERBS)})"
        raise ConfigError(f"{name!r} is not a verb{hint}")
    VERBS[name](rest)


def _list_of_verbs() -> str:
    lines = [f"  {name:<16} {verb.__doc__.splitlines()[0]}" for name, verb in VERBS.items()]
    head = "usage: ad <verb> [options]; `ad <verb> --help` lists the options of a verb\n"
    return "\n".join([head, *lines])


def _open_closed_streams() -> None:
    """Open the null device for each standard stream that the process was started without.

    Its descriptor would otherwise be that of the next file to be opened, such as a checkpoint.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - until the process ends


if __name__ == "__main__":  # python -m ad.cli: the command of jobs
    main()
