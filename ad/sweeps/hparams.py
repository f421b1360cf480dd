"""Records of a sweep for the HPARAMS page of TensorBoard: settings and scores of each run."""

from collections.abc import Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from ad.config.fields import label
from ad.config.schema import result_settings
from ad.errors import ConfigError
from ad.runtime.console import info
from ad.sweeps.planned import PlannedRun
from ad.sweeps.records import SCORES, RunRecord, read_curve, read_records

CURVE = "share_of_optimum"  # tag of the curve over in-context episodes


def write_hparams(records: Path, runs: Sequence[PlannedRun], folder: Path) -> None:
    """Write an event file for each of `runs` with a record, in a folder of its own in `folder`.

    The hyperparameters are `run` (the name in the records) and the settings in which the runs
    differ, the metrics the scores of the record. What `folder` holds of an earlier call stays.
    Raises ConfigError if no run has a record.
    """
    known = read_records(records)
    done = [run for run in runs if run.key in known]
    if not done:
        raise ConfigError(f"{records} has a record of none of the {len(runs)} runs")
    settings = {run.key: result_settings(run.config) for run in done}
    paths = list(dict.fromkeys(path for values in settings.values() for path in values))
    varied = [path for path in paths if len({_scalar(settings, run, path) for run in done}) > 1]
    for run in done:
        values = {path: _scalar(settings, run, path) for path in varied}
        own = folder / f"{run.config.name}-{run.key[:8]}"  # runs of one training share the name
        _write_run(own, {"run": run.changed} | values, known[run.key])
    info(f"{len(done)} of {len(runs)} runs are in {folder}: tensorboard --logdir {folder}")


def _scalar(settings: dict[str, dict], run: PlannedRun, path: str) -> bool | int | float | str:
    """Return the value at `path` of a run's settings: a number or a text, "" if it has none."""
    value = settings[run.key].get(path, "")
    return value if isinstance(value, bool | int | float | str) else label(value)


def _write_run(folder: Path, hyperparameters: dict, record: RunRecord) -> None:
    """Write one run, in place of an earlier one."""
    for earlier in folder.glob("events.*"):
        earlier.unlink()
    scores = {name: record[name] for name in SCORES if record[name] is not None}
    with SummaryWriter(str(folder)) as writer:
        for summary in hparams(hyperparameters, scores):
            writer.file_writer.add_summary(summary)
        for name, score in scores.items():
            writer.add_scalar(name, score)
        for episode, share in read_curve(record).items():
            writer.add_scalar(CURVE, share, episode)
