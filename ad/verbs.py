"""The verbs of one experiment: functions of the command-line arguments after a verb's name.

`of_run` and `of_experiment` parse the arguments, hold the lock of the run's folder and call a
function. Modules that import torch or numba are imported inside a function, so that a bad
configuration is refused in a fraction of a second.
"""

import argparse
import contextlib
import functools
import inspect
import itertools
import os
import signal
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ad.errors import ConfigError
from ad.runtime import signals
from ad.sweeps.launchers.options import take_launcher_options
from ad.sweeps.verbs import shard_of, whole_numbers

if TYPE_CHECKING:
    from ad.config.schema import Experiment
    from ad.runtime.run import Run

Verb = Callable[[Sequence[str]], None]  # takes the command-line arguments after the verb's name


def of_experiment(function: Callable[["Experiment", bool], None], flag: str = "fresh") -> Verb:
    """Return the verb that calls `function(experiment, is_set)` under the lock of the run's folder.

    `is_set` is whether the option `--<flag> true` was given.
    """

    @functools.wraps(function)
    def verb(argv: Sequence[str]) -> None:
        from ad.config.parser import load
        from ad.runtime.locks import locked

        if asks_for_help(argv):
            return _print_help(function, argv)
        arguments = load(argv, flag)
        with locked(arguments.config.folder):
            function(arguments.config, arguments.flag)

    return verb


def of_run(function: Callable[["Run", bool], None], discards: bool = False) -> Verb:
    """Return the verb that opens the run of an experiment and calls `function(run, fresh)`.

    With `discards`, `--fresh true` first empties a folder that holds a run of other settings.
    """

    @functools.wraps(function)
    def on_experiment(config: "Experiment", fresh: bool) -> None:
        from ad.runtime.run import Run

        function(Run.open(config, fresh and discards), fresh)

    return of_experiment(on_experiment)


def collect(run: "Run", fresh: bool) -> None:
    """Collect the learning histories of all train tasks: histories/<dataset>/."""
    from ad import pipeline

    pipeline.collect(run, fresh)


def train(argv: Sequence[str]) -> None:
    """Train the sequence model on the histories: logs/<run>/checkpoints/.

    torchrun --nproc-per-node 2 -m scripts.train --config_path ... trains in two processes, each on
    half of every batch. The same command resumes, with any number of processes.
    """
    if asks_for_help(argv):
        return _print_help(train, argv)
    if os.environ.get("WORLD_SIZE", "1") != "1":
        return _train_in_processes(argv)

    def on_run(run: "Run", fresh: bool) -> None:
        from ad import pipeline

        pipeline.train([run], fresh)

    of_run(on_run, discards=True)(argv)


def _train_in_processes(argv: Sequence[str]) -> None:
    """Train as one of the processes that torchrun started; one of a machine says what is wrong."""
    from ad.config.parser import load
    from ad.runtime import console

    console.silence(os.environ.get("LOCAL_RANK", "0") != "0")
    # PyTorch logs stack frames for each rank that it cannot reach. Read when torch is imported.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    arguments = load(argv)
    from ad import pipeline

    pipeline.train_in_processes(arguments.config, arguments.flag)


def evaluate(run: "Run", fresh: bool) -> None:
    """Evaluate the trained model in context on held-out and train tasks: logs/<run>/results.csv."""
    from ad import pipeline

    pipeline.evaluate(run, fresh)


def record(run: "Run", fresh: bool) -> None:
    """Record videos of the source agents and of the trained model: videos/<run>/."""
    from ad import pipeline

    pipeline.record(run, fresh)


def report(run: "Run", fresh: bool) -> None:
    """Write the report of an evaluated run: logs/<run>/report.html."""
    from ad import pipeline

    pipeline.report(run)


def run_all(run: "Run", fresh: bool) -> None:
    """Collect, train, evaluate, record and report; what is done already is kept."""
    from ad import pipeline

    pipeline.run_all([run], fresh)


def release(run: "Run", fresh: bool) -> None:
    """Write the trained model as safetensors, with a model card: logs/<run>/release/."""
    from ad.exchange.release import release
    from ad.runtime.console import info

    info(f"release: {release(run)}")


def export_histories(argv: Sequence[str]) -> None:
    """Write the learning histories of the train tasks in another format: --format minari or xland.

    --to says where. For minari it is the id of a data set, e.g. dark_room/a2c-v0, below the folder
    MINARI_DATASETS_PATH; for xland the path of a file in the HDF5 layout of XLand-MiniGrid's data
    sets. Both drop the statistics and checkpoints of the learner. Minari keeps all of a transition;
    xland drops the last observation of an episode, digits of rewards beyond float16, and whether an
    episode of full length was terminated. It holds undivided observations from 0 to 255.
    """
    if asks_for_help(argv):
        return _print_help(export_histories, argv)
    name, argv = _take_option(argv, "--format")
    place, argv = _take_option(argv, "--to")

    def on_experiment(config: "Experiment", fresh: bool) -> None:
        from ad.exchange.export import export_histories
        from ad.runtime.run import Run

        export_histories(Run(config), name, place, fresh)

    of_experiment(on_experiment)(argv)


def synthesize(config: "Experiment", fresh: bool) -> None:
    """Write a synthetic data set in XLand-MiniGrid's layout, where the experiment's source reads.

    It has the experiment's split.num_train_tasks, source.num_envs, source.env_steps and
    env.episode_length. A file that is not synthetic is kept, also with --fresh true.
    """
    from ad.exchange.synthetic import synthesize

    synthesize(config, fresh)


def verify(config: "Experiment", repair: bool) -> None:
    """Check the histories, checkpoints and results of a run against their hashes.

    With --repair true, damaged histories are collected again, and damaged checkpoints and results
    are removed.
    """
    from ad.reporting.verify import verify
    from ad.runtime.run import Run

    verify(Run(config), repair)


def tune(argv: Sequence[str]) -> None:
    """Search settings of the source algorithm: logs/<run>/tuning/.

    The agents of a search learn side by side, so --launcher starts it as one job; its other
    options are those of scripts.study.
    """
    if asks_for_help(argv):
        return _print_help(tune, argv)
    options, argv = take_launcher_options(argv)

    def search(config: "Experiment", fresh: bool) -> None:
        from ad.sweeps.tuning.report import tune_and_report

        tune_and_report(config, fresh)

    if options.launcher != "none":
        from ad.config.parser import load
        from ad.sweeps.launchers.launch import launch_experiment

        if not launch_experiment(options, "tune", argv, load(argv), 1):
            return
    of_experiment(search)(argv)


def inspect_model(argv: Sequence[str]) -> None:
    """Look inside the trained model and print a table for each analysis: logs/<run>/inspect/.

    --analyses names the analyses to run, with commas between, e.g. attention,lens, or all; without
    it the quick ones run, in less than two minutes for the model of configs/quickstart.yaml.
    --components names what the ablation removes, e.g. 1.0,mlp 1,0.1+neuron 2.5 for a head, an MLP,
    and a head with a neuron; by default each head and each MLP. The contexts are the evaluation's
    episodes on the held-out tasks, or with --contexts histories windows of the learning histories.
    --checkpoints names the train steps of checkpoints to analyze instead of the last one, e.g.
    0,100,200, or all: training.keep_every keeps them. Existing arrays are kept; --fresh true makes
    them again. The page inspect/index.html shows all arrays, and is written after each analysis.
    """
    if asks_for_help(argv):
        return _print_help(inspect_model, argv)
    names, argv = _take_option(argv, "--analyses")
    components, argv = _take_option(argv, "--components")
    source, argv = _take_option(argv, "--contexts")
    word, argv = _take_option(argv, "--checkpoints")
    steps = word if word in ("", "all") else whole_numbers("--checkpoints", word)

    def on_experiment(config: "Experiment", fresh: bool) -> None:
        from ad.interpret.inspect import DEFAULT, inspect_run
        from ad.interpret.page import write_page
        from ad.runtime.console import info
        from ad.runtime.run import Run

        chosen = [name.strip() for name in names.split(",")] if names else DEFAULT
        removed = [name.strip() for name in components.split(",")] if components else ()
        run = Run(config)
        write = functools.partial(write_page, run)
        contexts = source or "rollout"
        left_out = inspect_run(run, chosen, removed, contexts, fresh, steps or None, write)
        info(f"inspect: {write(left_out)}")

    of_experiment(on_experiment)(argv)


def app(argv: Sequence[str]) -> None:
    """Play a world beside the trained model in a browser, look inside it, edit what it remembers.

    It listens on the loopback address only and writes nothing. --port is that of the address, 8000
    by default; 0 takes any free one. SIGINT (Ctrl-C) or SIGTERM ends it, with exit code 0.
    """
    if asks_for_help(argv):
        return _print_help(app, argv)
    from ad.config.parser import load

    word, argv = _take_option(argv, "--port")
    numbers = whole_numbers("--port", word or "8000")
    if len(numbers) != 1 or not 0 <= numbers[0] < 2**16:
        raise ConfigError(f"--port must be a whole number from 0 to 65535, not {word}")
    arguments = load(argv)
    if arguments.flag:
        raise ConfigError("the app writes nothing, so that it has no --fresh")
    from ad.interpret.app.requests import App
    from ad.interpret.app.server import serve
    from ad.runtime.run import Run

    run = Run(arguments.config)
    with contextlib.suppress(KeyboardInterrupt, signals.Terminated):  # which is how it ends
        serve(lambda: App(run).answer, numbers[0], run.config.name)


def seeds(argv: Sequence[str]) -> None:
    """Run an experiment with several training seeds, e.g. --seeds 0,1,2, and print their table.

    The run of seed 0 is called <name>-seed-0, whatever training.train_seed says. The seeds train
    side by side, or with --shard 1/2, --launcher and the other options of scripts.study in several
    processes. Existing files are kept, and the same command resumes.
    """
    if asks_for_help(argv):
        return _print_help(seeds, argv)
    from ad.config.parser import load

    options, words_of_jobs = take_launcher_options(argv)
    part, argv = _take_option(words_of_jobs, "--shard")
    words, argv = _take_option(argv, "--seeds")
    if not words:
        raise ConfigError("--seeds is missing: the training seeds with commas between, e.g. 0,1,2")
    numbers = whole_numbers("--seeds", words)
    if len(set(numbers)) < len(numbers):
        raise ConfigError(f"--seeds must be different numbers, not {words}")
    (number, count), arguments = shard_of(part or "1/1"), load(argv)
    from ad.sweeps.launchers.launch import launch_experiment
    from ad.sweeps.seeds import print_seeds, run_seeds

    if options.launcher == "none":
        if own := numbers[number - 1 :: count]:
            run_seeds(arguments.config, own, arguments.flag)
    elif launch_experiment(options, "seeds", words_of_jobs, arguments, len(numbers)):
        print_seeds(arguments.config, numbers)


def _take_option(argv: Sequence[str], name: str) -> tuple[str, list[str]]:
    """Return the word after the option `name`, "" without one, and the other arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(name, nargs="?", default="", dest="word")
    known, rest = parser.parse_known_args(argv)
    return known.word or "", rest


def asks_for_help(argv: Sequence[str]) -> bool:
    """Return whether the arguments ask for the help of a verb."""
    return bool({"-h", "--help"} & set(argv))


def _print_help(verb: Callable, argv: Sequence[str]) -> None:
    """Print the docstring of `verb` and all settings, also of classes that `argv` name."""
    from ad.config.help import help_text

    options = {name.removeprefix("--"): word for name, word in itertools.pairwise(argv)}
    print_text(f"{inspect.getdoc(verb)}\n\n{help_text(options)}")


def print_text(text: str) -> None:
    """Print `text`; the end of its reader, as in `--help | head`, ends this process quietly."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    print(text)
