"""The command line: `ad <verb> --config_path configs/<experiment>.yaml [--section.field value]`.

`python -m scripts.<verb>` runs the same verb from the root of a checkout. A word without an option
is `--config_path` of a verb of one run, else that of an option which is declared `bare`. VERBS is
the table of all verbs: the function that a verb calls, what it takes from the experiment, and its
own options. A function is named by a string, so that `--help` and a wrong option import nothing
heavy.

Exit codes: 0 done, 2 bad input or configuration, 3 the machine, 4 corrupt data, 5 numeric failure,
130 interrupted, 143 terminated. Any other failure is a bug and shows its traceback. Only one
process at a time works in a run's folder; a second one exits with 3.
"""

import importlib
import itertools
import os
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from ad.config.options import (
    Option,
    flag,
    help_topic,
    minutes,
    names,
    numbers,
    path,
    port,
    read_words,
    shard,
    take_options,
    titles,
    unknown_options,
    whole_numbers,
)
from ad.errors import ADError, ConfigError, MachineError, is_out_of_memory
from ad.runtime import signals
from ad.sweeps.launchers.options import LAUNCHER_OPTIONS, take_jobs

if TYPE_CHECKING:
    from ad.config.schema import Experiment
    from ad.runtime.run import Run


@contextmanager
def open_new_run(config: "Experiment", fresh: bool, writes: bool = True) -> Generator["Run"]:
    """Open the locked run of `config`; `fresh` discards a run of other settings in its folder."""
    from ad.runtime.locks import locked
    from ad.runtime.run import Run

    with locked(config.folder):
        yield Run.open(config, fresh, writes)


def open_run(config: "Experiment", fresh: bool) -> AbstractContextManager["Run"]:
    """Open the locked run of `config`, whose settings must be those in its folder."""
    return open_new_run(config, fresh=False)


def open_results(config: "Experiment", fresh: bool) -> AbstractContextManager["Run"]:
    """Open the locked run of `config` as `open_run` does, and leave its settings as they are."""
    return open_new_run(config, fresh=False, writes=False)


@contextmanager
def lock_files(config: "Experiment", fresh: bool) -> Generator["Run"]:
    """Lock the folder of the run of `config`, which may hold a run of other settings."""
    from ad.runtime.locks import locked
    from ad.runtime.run import Run

    with locked(config.folder):
        yield Run(config)


def as_it_is(config: "Experiment", fresh: bool) -> AbstractContextManager["Experiment"]:
    """Give the configuration itself: the function locks what it writes."""
    return nullcontext(config)


@dataclass(frozen=True)
class Verb:
    """A verb of the command line.

    `function` is called with what `takes` makes of the experiment, if the verb reads one, and with
    its own `options` as keyword arguments. LAUNCHER_OPTIONS among them become the argument `jobs`.
    """

    name: str
    function: str  # "module:function"
    about: str  # the text of --help; its first line is also in the list of verbs
    options: tuple[Option, ...] = ()
    takes: Callable[["Experiment", bool], AbstractContextManager] | None = None

    def __call__(self, argv: Sequence[str]) -> None:
        """Run the verb with the words after its name, or print its help."""
        if (topic := help_topic(argv)) is not None:
            from ad.config.help import verb_help

            named = {name.removeprefix("--"): word for name, word in itertools.pairwise(argv)}
            has_settings = self.takes is not None
            return _print(
                verb_help(self.name, self.about, self.options, has_settings, topic, named)
            )
        words, problems = read_words(argv, self.bare)
        given = dict(words)
        values = take_options(self.options, words, problems)
        own = [option.name for option in self.options]
        config, takes = None, self.takes
        if takes:
            from ad.config.parser import load_words
            from ad.runtime import console

            config = load_words(words, problems, own, console.warn)
        elif problems := [*problems, *unknown_options(words, own)]:
            raise ConfigError("\n  ".join(" ".join(problem) for problem in problems))
        if self.starts_jobs:
            values["jobs"] = take_jobs(self.name, self.options, given, values)
        if config is None or takes is None:
            return self.load()(**values)
        with takes(config, values.get("fresh", False)) as taken:
            self.load()(taken, **values)

    @property
    def bare(self) -> list[str]:
        """The names of the options whose words may stand without `--name`, in their order."""
        own = [option.name for option in self.options if option.bare]
        return ["config_path", *own] if self.takes else own

    @property
    def starts_jobs(self) -> bool:
        """Whether the verb can be run in jobs."""
        return LAUNCHER_OPTIONS[0] in self.options

    def load(self) -> Callable[..., Any]:
        """Import and return the function."""
        module, name = self.function.split(":")
        return getattr(importlib.import_module(module), name)


def _fresh(about: str) -> Option:
    return Option("fresh", about, "false", flag)


TRUST = Option(
    "trust-code", "run the classes outside the suite that it names", "false", flag, "trust_code"
)
PORT = Option("port", "port of the address; 0 takes any free one", "8000", port)
SHARD = Option("shard", "part of the runs to make, e.g. 1/2 and 2/2 in two processes", "1/1", shard)
SWEEP_OPTIONS = (
    Option("board", "name of a board; empty: the first of the file"),
    Option("groups", "groups to run, with semicolons between; empty: all", "", titles),
    Option("rows", "rows to run, with semicolons between; empty: all", "", titles),
    Option("seeds", "training seeds to run, e.g. 0,1; empty: all", "", whole_numbers),
    Option("root", "folder in which runs write their files; empty: logs/<sweep>", "", path),
    SHARD,
    Option("keep", "keep the folders of finished runs", "false", flag),
    Option("status", "list the runs with their state, and stop", "false", flag),
    Option("table", "write the page from the records, and stop", "false", flag),
    Option("runs", "make the runs without the page, and stop", "false", flag),
    Option("retry", "make the runs that failed again", "false", flag, for_jobs=False),
    Option(
        "release",
        "release the kept run of each row in each group into this folder, and stop",
        "",
        path,
        for_jobs=False,
    ),
    Option("merge", "files of records made elsewhere, with commas between: add them", "", names),
    *LAUNCHER_OPTIONS,
)
RESUMES = """
A finished run has its record beside the file and is not made again; the same command resumes the
others. Several processes may each make one shard of the runs.
"""


def _sweep(name: str, file: str, about: str, more: str = "") -> Verb:
    """Return the verb that runs the sweep of a file, by default that at `file`."""
    options = Option("file", "YAML file of the sweep", file, path, bare=True), *SWEEP_OPTIONS
    return Verb(name, "ad.sweeps.verbs:sweep", f"{about}\n{RESUMES}{more}", options)


TABLE = [
    Verb(
        "collect",
        "ad.pipeline:collect",
        "Collect the learning histories of all train tasks: histories/<dataset>/.",
        (_fresh("collect all histories again"),),
        open_new_run,
    ),
    Verb(
        "train",
        "ad.pipeline:train_experiment",
        """Train the sequence model on the histories: logs/<run>/checkpoints/.

torchrun --nproc-per-node 2 -m scripts.train --config_path ... trains in two processes, each on half
of every batch. The same command resumes, with any number of processes.""",
        (_fresh("discard the checkpoints and train from the start"),),
        as_it_is,
    ),
    Verb(
        "evaluate",
        "ad.pipeline:evaluate",
        "Evaluate the model in context on held-out and train tasks: logs/<run>/results.csv.",
        (_fresh("evaluate again"),),
        open_run,
    ),
    Verb(
        "record",
        "ad.pipeline:record",
        "Record videos of the source agents and of the trained model: videos/<run>/.",
        (_fresh("record all videos again"),),
        open_results,
    ),
    Verb(
        "report",
        "ad.pipeline:report",
        "Write the report of an evaluated run: logs/<run>/report.html.",
        takes=open_results,
    ),
    Verb(
        "demo",
        "ad.pipeline:demo",
        """Write a page in which the trained model plays a dark room: logs/<run>/demo.html.

The page is one file, computes the model in JavaScript, and needs no server and no network. It is
for runs of algorithm distillation as configs/quickstart.yaml has it; `run` writes it for them.""",
        takes=open_results,
    ),
    Verb(
        "run",
        "ad.pipeline:run_experiment",
        "Collect, train, evaluate, record and report; what is done already is kept.",
        (_fresh("discard the run and start again; its histories are kept"),),
        open_new_run,
    ),
    Verb(
        "check",
        "ad.check:check",
        """Try the components of an experiment against their contracts, in seconds.

A small experiment with the same components is collected, trained and evaluated in a temporary
folder. `ad check path/to/file.py:Mine` tries a world, source, encoder, memory or method of your own
among components of the suite; --env.id and other settings change these.""",
        takes=as_it_is,
    ),
    Verb(
        "doctor",
        "ad.doctor:doctor",
        """Say in sentences why a world does not learn, with the settings that change it.

The experiment is played at random, collected and trained for about a minute in a temporary folder;
histories and a model that its run has already are used in place of new ones.""",
        takes=as_it_is,
    ),
    Verb(
        "init",
        "ad.scaffold:init",
        """Write the experiments of the suite into a new folder: configs/.

An experiment with a world and a method of your own lies beside them. Then all verbs work there.""",
        (Option("folder", "a new or empty folder", None, path, bare=True),),
    ),
    Verb(
        "new",
        "ad.scaffold:new",
        """Write a component of your own from a template, and a test beside it.

In the root of a checkout the files go where such components are, and the registry gets a line. What
is written runs, passes its test and is under sixty lines: change it into your own.""",
        (
            Option("kind", "world, method, source, encoder or analysis", None, bare=True),
            Option("name", "name of the module, e.g. my_method", None, bare=True),
            Option(
                "folder",
                "folder of the files; empty: the working directory, or that of the kind in a "
                "checkout",
                "",
                path,
            ),
        ),
    ),
    Verb(
        "seeds",
        "ad.sweeps.verbs:seeds",
        """Run an experiment with several training seeds, and print their table.

The run of seed 0 is called <name>-seed-0, whatever training.train_seed says. Existing files are
kept, and the same command resumes.""",
        (
            Option("seeds", "training seeds with commas between, e.g. 0,1,2", None, whole_numbers),
            _fresh("discard the runs and start again"),
            SHARD,
            *LAUNCHER_OPTIONS,
        ),
        as_it_is,
    ),
    Verb(
        "table",
        "ad.sweeps.verbs:table",
        "Print the results of all runs under logs/ as a Markdown table, grouped by experiment.",
        (
            Option("runs", "names of runs with commas between; empty: all", "", names),
            Option("root", "folder of logs/", ".", path),
        ),
    ),
    _sweep(
        "leaderboard",
        "configs/records/leaderboard.yaml",
        "Evaluate every method in every world of a board, and write the page of the leaderboard.",
    ),
    _sweep(
        "results",
        "configs/records/results.yaml",
        "Run the rows of published tables and write the tables.",
    ),
    _sweep(
        "sweep",
        "",
        "Run the sweep of any file: a study, tables, a leaderboard, findings or a search.",
        """
configs/records/README.md says what such a file has. With --status true and without --file, the runs
of every sweep in configs/records are listed.
""",
    ),
    Verb(
        "verify",
        "ad.reporting.verify:verify",
        "Check the histories, checkpoints and results of a run against their hashes.",
        (
            Option(
                "repair",
                "collect damaged histories again, and remove damaged checkpoints and results",
                "false",
                flag,
            ),
        ),
        lock_files,
    ),
    Verb(
        "release",
        "ad.exchange.release:release",
        "Write the trained model as safetensors, with a model card: logs/<run>/release/.",
        takes=open_results,
    ),
    Verb(
        "submit",
        "ad.entry:submit",
        """Write the release of an evaluated run and its claim as one file: logs/<run>/entry.tar.

The claim has the scores, the fingerprint of the checkpoint, and the hardware and the versions that
they were made with. With --program the policy is a program in place of the run's model, and is
evaluated first.""",
        (
            Option(
                "program",
                "Python file that answers the calls of a rollout (ad/rollout/program.py)",
                "",
                path,
            ),
        ),
        open_results,
    ),
    Verb(
        "verify_entry",
        "ad.sweeps.verbs:verify_entry",
        """Evaluate an entry again, from its weights alone, and say whether its claim stands.

The entry is a file of `submit`. It is evaluated on the tasks of its claim and on fresh ones, in a
process with limits of memory and time and without a network; nothing in the file is run as code. On
the hardware and with the versions of the claim its scores must be equal to the digit, elsewhere
they must lie in the interval. Exit code 4 if the claim does not stand or the file was changed.""",
        (
            Option(
                "bundle", "file of the entry, e.g. logs/quickstart/entry.tar", None, path, bare=True
            ),
            Option("minutes", "minutes that the evaluation may take", "5", minutes),
            Option(
                "run-program",
                "run the program of an entry that has no model: code that nobody has checked",
                "false",
                flag,
                "run_program",
            ),
            Option("file", "sweep with entries; one whose claim stands is added to them", "", path),
            Option("board", "name of a board of the sweep; empty: the first of the file"),
        ),
    ),
    Verb(
        "export_histories",
        "ad.exchange.export:export_histories",
        """Write the learning histories of the train tasks in another format.

All formats drop the statistics and checkpoints of the learner. Minari and parquet keep all of a
transition; xland drops the last observation of an episode, digits of rewards beyond float16, and
whether an episode of full length was terminated. It holds undivided observations from 0 to 255.""",
        (
            Option(
                "format",
                "minari, parquet, or xland for the HDF5 layout of XLand-MiniGrid's data sets",
            ),
            Option(
                "to",
                "for minari the id of a data set below MINARI_DATASETS_PATH, e.g. "
                "dark_room/a2c-v0; for parquet the path of a folder, for xland that of a file",
                argument="place",
            ),
            _fresh("overwrite another data set"),
        ),
        lock_files,
    ),
    Verb(
        "import_histories",
        "ad.exchange.imports:import_histories",
        """Read learning histories in another format, and write an experiment to train on them.

A data set of export_histories keeps its world and its split. Another one is a world of its own that
can be trained on, but not stepped: there is no evaluation. A data set of Minari is the history of
one actor. XLand-MiniGrid's layout lacks the last observation of an episode: the one before it is
repeated. Then train with the file that --to names.""",
        (
            Option("format", "minari, parquet or xland", None),
            Option(
                "from",
                "the data set: for minari its id, for parquet the path of a folder, for xland of a "
                "file",
                None,
                argument="place",
            ),
            Option(
                "to", "file of the experiment, e.g. configs/mine.yaml", None, path, "experiment"
            ),
            Option("root", "folder of histories/", "."),
            _fresh("import the histories again, and overwrite another experiment"),
            TRUST,
        ),
    ),
    Verb(
        "analyze",
        "ad.interpret.inspect:analyze",
        """Look inside the trained model and print a table for each analysis: logs/<run>/inspect/.

Existing arrays are kept. The page inspect/index.html shows all arrays, and is written after each
analysis.""",
        (
            Option(
                "analyses",
                "names with commas between, e.g. attention,lens, or all; empty: the quick ones, in "
                "less than two minutes for the model of configs/quickstart.yaml",
                "",
                names,
            ),
            Option(
                "components",
                "what the ablation removes, e.g. 1.0,mlp 1,0.1+neuron 2.5 for a head, an MLP, and "
                "a head with a neuron; empty: each head and each MLP",
                "",
                names,
            ),
            Option(
                "contexts",
                "rollout: the evaluation's episodes on the held-out tasks; histories: windows of "
                "the learning histories; made: decisions of --situation, by placing the agent",
                "rollout",
            ),
            Option(
                "checkpoints",
                "train steps of the checkpoints to analyze, e.g. 0,100,200, or all that "
                "training.keep_every kept; empty: the last one",
            ),
            Option(
                "situation",
                "the situation of the decisions that are looked at, e.g. goal in front; empty: all",
            ),
            Option(
                "asked",
                "returns that rollouts ask a return-conditioned model for, with commas between; "
                "empty: evaluation.asked_returns, else lowest, middle and highest of the histories",
                "",
                numbers,
            ),
            Option(
                "direction",
                "an action against another, e.g. forward - turn right, or one against the mean of "
                "the others; empty: the best action against the second",
            ),
            Option(
                "bank",
                "situations.npz of another run, for the behavior of this model in its contexts; "
                "empty: contexts of this model",
            ),
            _fresh("analyze again"),
        ),
        lock_files,
    ),
    Verb(
        "app",
        "ad.interpret.app.server:serve_run",
        """Play a world next to the trained model in a browser, and look inside the model.

The app listens on the loopback address only. It writes only the situations that are saved in it, in
inspect/situations.npz of the run. SIGINT (Ctrl-C) or SIGTERM ends it, with exit code 0.""",
        (PORT,),
        as_it_is,
    ),
    Verb(
        "play",
        "ad.play:play",
        """Play a world next to a released model in a browser, as `app` does; nothing is trained.

`leaderboard --release models` and `release` write such models.""",
        (
            Option("model", "folder of a release, or its name in models/", None, path, bare=True),
            PORT,
            TRUST,
        ),
    ),
]
VERBS = {verb.name: verb for verb in TABLE}


def main() -> NoReturn:
    """Run the verb that the first command-line argument names, and exit: the command `ad`."""
    run_and_exit(_dispatch)


def run_script(name: str, module: str = "__main__") -> None:
    """Run the verb called `name` and exit, if `module` is the one that Python runs.

    A script passes its `__name__`: spawned processes import it again, and must not run the verb.
    """
    if module == "__main__":
        run_and_exit(VERBS[name])


def run_and_exit(verb: Callable[[Sequence[str]], None]) -> NoReturn:
    """Call `verb` with the command-line arguments and exit with its code."""
    signals.install()
    for name in ("stdout", "stderr"):  # the next file to be opened would get its descriptor
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - until the process ends
    if os.environ.get("WORLD_SIZE", "1") != "1":  # of a machine one process of torchrun speaks
        from ad.runtime import console

        console.silence(os.environ.get("LOCAL_RANK", "0") != "0")
        # PyTorch logs stack frames for each rank that it cannot reach. Read when torch is imported.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    # Spawned processes may import a verb's main module again, which does not run the verb.
    os.environ.setdefault("MINIGRID_WORKERS", "all")
    sys.exit(exit_code(verb, sys.argv[1:]))


def exit_code(verb: Callable[[Sequence[str]], None], argv: Sequence[str]) -> int:
    """Call `verb(argv)` and return the exit code; an expected failure is a sentence on stderr."""
    again = "run the same command to resume"
    if "--fresh true" in " ".join(argv).replace("=", " "):
        again = "run the same command to begin again, or without --fresh true to go on"
    try:
        verb(argv)
        return 0
    except ADError as error:
        sentence, code = str(error), error.exit_code
    except KeyboardInterrupt:
        sentence, code = f"interrupted; {again}", 130
    except signals.Terminated:
        sentence, code = f"terminated; {again}", 143
    except OSError as error:
        if error.errno is None:  # raised by hand: a bug
            raise
        file = f": {error.filename}" if error.filename else ""
        sentence, code = f"{error.strerror}{file}", MachineError.exit_code
    except (MemoryError, RuntimeError) as error:  # PyTorch raises a RuntimeError on a CPU
        if not is_out_of_memory(error):
            raise
        sentence = "the memory is not enough: use, for example, a smaller batch, context or model"
        code = MachineError.exit_code
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("", "ad", "envs"):
            raise
        hint = "in a checkout, run `bash scripts/setup.sh` once, then `source .venv/bin/activate`"
        print(f"{error.name} is not installed in this Python: {hint}", file=sys.stderr)
        return MachineError.exit_code
    from ad.runtime import console

    console.error(sentence)
    return code


def _dispatch(argv: Sequence[str]) -> None:
    """Run the verb that `argv[0]` names. Raises ConfigError if there is no such verb."""
    name, *rest = argv or ["--help"]
    name = name if name.startswith("-") else name.replace("-", "_")
    if name in ("-h", "--help"):
        lines = [f"  {verb.name:<16} {verb.about.splitlines()[0]}" for verb in TABLE]
        head = "usage: ad <verb> [options]; `ad <verb> --help` lists the options of a verb\n"
        return _print("\n".join([head, *lines]))
    if name not in VERBS:
        from envs.registry import did_you_mean  # imports gymnasium

        hint = did_you_mean(name, VERBS) or f" (verbs: {', '.join(VERBS)})"
        raise ConfigError(f"{name!r} is not a verb{hint}")
    VERBS[name](rest)


def _print(text: str) -> None:
    """Print `text`; the end of its reader, as in `--help | head`, ends this process quietly."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    print(text)


if __name__ == "__main__":  # python -m ad.cli: the command of jobs
    main()
