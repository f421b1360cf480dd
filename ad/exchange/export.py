"""Export: write the learning histories of an experiment in another format."""

import hashlib
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from ad.data.histories import HistoryStore
from ad.data.manifest import STOPPED, read_manifest
from ad.errors import ConfigError, CorruptError
from ad.exchange.formats import Description, Export, Format, new_format
from ad.runtime.console import info
from ad.runtime.run import Run
from envs.tasks import task_name


def export_histories(run: Run, format: str, place: str = "", fresh: bool = False) -> None:
    """Write the histories of the train tasks of `run` at `place`, by default beside histories/.

    Does nothing if they are there already. Raises ConfigError without histories, for spaces that
    the format cannot hold, and for another data set at `place` unless `fresh`.
    """
    chosen, histories = new_format(format), HistoryStore(run.config)
    if run.config.env.change:
        raise ConfigError(
            "histories whose tasks change are not exported: a format has one task each"
        )
    if text := chosen.problem(run.world):
        raise ConfigError(f"the format {format} {text}")
    folders = histories.folders(run.split.train_tasks)
    if folders is None:
        raise ConfigError("some train tasks have no history: run `ad collect` first")
    place = place or chosen.default_place(histories.path)
    description = describe(run, folders)
    if chosen.exists(place) and not fresh:
        _require_same(chosen, place, description)
        return info(f"export: already done, {place}")
    total = len(folders) * description.num_actors * description.steps
    with tqdm(total=total, desc="export", unit=" steps", unit_scale=True, disable=None) as bar:
        chosen.write(place, Export(description, run.split.train_tasks, folders, run.world, bar))
    info(f"export: {len(folders)} histories in {place}, without {chosen.lost}")


def describe(run: Run, folders: list[Path]) -> Description:
    """Return the description of the histories in `folders`, one for each train task of `run`."""
    config, tasks = run.config, run.split.train_tasks
    manifests = [_manifest(folder) for folder in folders]
    hashes = [entry["sha256"] for m in manifests for _, entry in sorted(m["files"].items())]
    env, source = asdict(config.env), config.source
    del env["change"]  # 0: the descriptions of data sets that are written already have none
    return Description(
        env=env,
        split=asdict(config.split),
        source={
            "algorithm": source.algorithm,
            "settings": source.settings,
            "source_seed": source.source_seed,
        },
        tasks=tasks.tolist(),
        stopped={
            task_name(task): manifest[STOPPED]
            for task, manifest in zip(tasks, manifests, strict=True)
            if STOPPED in manifest
        },
        num_actors=source.num_envs,
        steps=source.env_steps // source.num_envs,
        fingerprint=hashlib.sha256("\n".join(hashes).encode()).hexdigest(),
    )


def _manifest(folder: Path) -> dict:
    try:
        return read_manifest(folder)
    except (OSError, ValueError) as error:
        raise CorruptError(f"the history {folder} cannot be used: {error}") from error


def _require_same(chosen: Format, place: str, description: Description) -> None:
    """Raise ConfigError unless the data set at `place` holds the histories of `description`."""
    try:
        existing = chosen.open(place).contents.description
    except (ConfigError, CorruptError) as error:
        raise ConfigError(f"{place} is there already ({error}): {OVERWRITE}") from error
    if existing is None or existing.dump() != description.dump():
        raise ConfigError(f"{place} holds other histories: {OVERWRITE}")


OVERWRITE = "choose another --to, or overwrite it with --fresh true"
