"""Parquet: one row a transition, in a folder that can be uploaded to Hugging Face as it is.

`data/train-*.parquet` has a file for each task, sorted by actor and step, and `episodes/` a row for
each episode. `README.md` is the card, whose front matter names both as the configurations that the
Hub's viewer shows. `croissant.json` is the description in Croissant 1.0, with the fields of its
responsible-AI extension, and `eval.yaml` the scores that `ad.exchange.card` writes of models.
Arrays of an observation are lists, in the order of their flattened entries.
"""

import json
import math
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ad.config.yaml_io import dump_yaml
from ad.data.episodes import episodes, index_in_actor
from ad.data.schema import transition_fields
from ad.data.store import History
from ad.errors import ConfigError, CorruptError
from ad.evaluation.scores import SCORES, columns
from ad.exchange.card import LIBRARY, benchmark_id
from ad.exchange.formats import (
    KEY,
    Contents,
    Description,
    Export,
    Format,
    Reader,
    parse_description,
)
from ad.runtime.files import (
    atomic_rename_dir,
    remove,
    remove_leftovers_of,
    require_disk_space,
    sha256,
    sync,
    write_json,
    write_text,
)
from ad.runtime.locks import locked
from envs.tasks import task_name

ROWS = 2**16  # transitions of an actor in a group of rows
PLACE = ("task", "actor", "step", "episode")  # where a transition is, before its fields
EPISODES = "episodes/train.parquet"
CROISSANT = "http://mlcommons.org/croissant/"
DTYPES = {"b": "sc:Boolean", "f": "sc:Float", "i": "sc:Integer", "u": "sc:Integer"}


class Parquet(Format):
    """Folders of Parquet files; `place` is the path of a folder."""

    extra = "parquet"
    lost = "the learner's statistics and checkpoints"

    def default_place(self, dataset: Path) -> str:
        return f"{dataset}-parquet"

    def write(self, place: str, export: Export) -> None:
        folder = Path(os.path.abspath(place))
        is_empty = folder.is_dir() and not any(folder.iterdir())
        if folder.exists() and not is_empty and not any(folder.glob("data/train-*.parquet")):
            raise ConfigError(f"{place} is no data set of this format: it is not replaced")
        with locked(folder):
            temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
            remove_leftovers_of(folder)
            fields = transition_fields(export.world)
            rows = len(export.description.tasks) * export.description.num_actors
            rows *= export.description.steps
            width = 32 + sum(entry.nbytes for entry in fields.values())
            require_disk_space(folder, rows * width, f"the data set {place}")
            try:
                _write(temporary, folder.name, export)
                atomic_rename_dir(temporary, folder)
            finally:
                remove(temporary)

    def open(self, place: str) -> "ParquetReader":
        return ParquetReader(Path(place))


class ParquetReader(Reader):
    """An open folder that this suite wrote; a task is the number of its file."""

    def __init__(self, folder: Path):
        import pyarrow.parquet as parquet

        self.place, self.files = str(folder), sorted((folder / "data").glob("*.parquet"))
        if not self.files:
            raise ConfigError(f"{folder} has no file data/*.parquet")
        self.open = lambda path: parquet.ParquetFile(path, page_checksum_verification=True)
        with self.reading():
            metadata = self.open(self.files[0]).schema_arrow.metadata or {}
        if KEY.encode() not in metadata:
            raise ConfigError(f"{folder} cannot be imported: export_histories did not write it")
        description = parse_description(metadata[KEY.encode()].decode(), self.place)
        self.shapes = json.loads(metadata[b"shapes"])
        if len(self.files) != len(description.tasks):
            text = f"it has {len(self.files)} files of {len(description.tasks)} tasks"
            raise CorruptError(f"{folder} cannot be read: {text}")
        self.contents = Contents(
            parts={},
            num_actions=0,
            num_tasks=len(self.files),
            num_actors=description.num_actors,
            steps=description.steps,
            description=description,
        )

    def read(self, task: int, num_actors: int, start: int, stop: int) -> dict[str, np.ndarray]:
        read: dict[str, list[np.ndarray]] = {name: [] for name in self.shapes}
        with self.reading():
            file = self.open(self.files[task])
            rows = file.metadata.row_group(0).num_rows
            per_actor = math.ceil(self.contents.steps / rows)
            first, last = start // rows, (stop - 1) // rows
            for actor in range(num_actors):
                groups = [actor * per_actor + group for group in range(first, last + 1)]
                table = file.read_row_groups(groups, columns=["task", "actor", *self.shapes])
                place = [(own.min(), own.max()) for own in map(_values, table.columns[:2])]
                if place != [(task, task), (actor, actor)]:
                    raise ValueError(f"{self.files[task].name} has other tasks or actors")
                own = slice(start - first * rows, stop - first * rows)
                for name, shape in self.shapes.items():
                    read[name].append(_values(table[name]).reshape(-1, *shape)[own])
            return {name: np.stack(values) for name, values in read.items()}


def _values(column) -> np.ndarray:
    """Return the values of a column, those of lists one after the other."""
    import pyarrow as pa

    values = column.combine_chunks()
    if pa.types.is_fixed_size_list(values.type):
        values = values.flatten()
    return values.to_numpy(zero_copy_only=False)


def _write(folder: Path, name: str, export: Export) -> None:
    """Write all files of the data set `name` into the new `folder`."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    description, summaries = export.description, []
    fields = transition_fields(export.world)
    shapes = {own: list(field.shape) for own, field in fields.items() if own != "time"}
    columns_of = [(own, pa.int64()) for own in PLACE]
    for own, field in fields.items():
        kind = pa.from_numpy_dtype(field.dtype)
        columns_of.append((own, pa.list_(kind, math.prod(field.shape)) if field.shape else kind))
    schema = pa.schema(columns_of, {KEY: description.dump(), "shapes": json.dumps(shapes)})
    for own in ("data", "episodes"):
        (folder / own).mkdir(parents=True)
    options: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}
    count = len(description.tasks)
    for number, (task, history) in enumerate(export.histories()):
        path = folder / f"data/train-{number:05d}-of-{count:05d}.parquet"
        with parquet.ParquetWriter(path, schema, **options) as file:
            for rows in _rows(number, history, export):
                arrays = [_arrow_array(rows[own], kind) for own, kind in columns_of]
                file.write_table(pa.Table.from_arrays(arrays, schema=schema), ROWS)
        sync(path)
        summaries.append(_episodes(number, task, history))
    joined = {own: np.concatenate([each[own] for each in summaries]) for own in summaries[0]}
    parquet.write_table(pa.table(joined), folder / EPISODES, **options)
    sync(folder / EPISODES)
    write_text(folder / "README.md", _card(name, description))
    write_text(folder / "eval.yaml", _benchmark(description))
    write_json(folder / "croissant.json", _croissant(folder, name, description, fields))


def _rows(number: int, history: History, export: Export) -> Iterator[dict[str, np.ndarray]]:
    """Yield the columns of at most ROWS transitions of an actor, in their order."""
    arrays = history.arrays
    for actor in range(len(arrays["action"])):
        done = np.asarray(arrays["terminated"][actor] | arrays["truncated"][actor])
        episode = np.cumsum(done) - done
        for start in range(0, len(done), ROWS):
            own = slice(start, start + ROWS)
            rows = {name: np.asarray(arrays[name][actor, own]) for name in arrays}
            step = np.arange(len(done))[own]
            place = {"task": np.full_like(step, number), "actor": np.full_like(step, actor)}
            yield rows | place | {"step": step, "episode": episode[own]}
            export.bar.update(len(step))


def _episodes(number: int, task: np.ndarray, history: History) -> dict[str, np.ndarray]:
    """Return the columns of the whole episodes of a history, in their order."""
    terminated, reward = history.arrays["terminated"], history.arrays["reward"]
    whole = episodes(terminated | history.arrays["truncated"], reward)
    return {
        "task": np.full(len(whole.actor), number),
        "task_name": np.full(len(whole.actor), task_name(task), object),
        "actor": whole.actor,
        "episode": index_in_actor(whole.actor),
        "first_step": whole.start,
        "length": whole.stop - whole.start,
        "return": whole.returns,
        "terminated": np.asarray(terminated)[whole.actor, whole.stop - 1],
    }


def _arrow_array(values: np.ndarray, kind):
    """Return the values [T, ...] of a column as an Arrow array of T entries."""
    import pyarrow as pa

    if pa.types.is_fixed_size_list(kind):
        flat = pa.array(values.reshape(-1), kind.value_type)
        return pa.FixedSizeListArray.from_arrays(flat, type=kind)
    return pa.array(values, kind)


def _about(description: Description) -> str:
    source, env = description.source, description.env
    return (
        f"Learning histories of {source['algorithm']}: {len(description.tasks)} tasks of "
        f"{env['id']}, {description.num_actors} actors of {description.steps} transitions each, "
        "from the first step of learning to the last."
    )


def _card(name: str, description: Description) -> str:
    """Return the card of the data set, with the front matter that the Hub reads."""
    power = len(str(len(description.tasks) * description.num_actors * description.steps)) - 1
    size = f"{_short(power)}<n<{_short(power + 1)}" if power >= 3 else "n<1K"
    front = {
        "pretty_name": name,
        "task_categories": ["reinforcement-learning"],
        "tags": ["reinforcement-learning", "in-context-learning", "learning-histories"],
        "size_categories": [size],
        "configs": [
            {"config_name": "transitions", "default": True, "data_files": "data/train-*.parquet"},
            {"config_name": "episodes", "data_files": EPISODES},
        ],
    }
    return CARD.format(
        front=dump_yaml(front),
        name=name,
        about=_about(description),
        env=dump_yaml(description.env),
        source=dump_yaml(description.source),
    )


def _short(power: int) -> str:
    """Return 10 to the `power` as 1K, 10M and so on."""
    return f"{10 ** (power % 3)}{' KMBT'[power // 3]}"


def _benchmark(description: Description) -> str:
    """Return what declares the data set a benchmark: a task of the Hub for each score."""
    names = [score.name for score in columns("run")]
    return dump_yaml(
        {
            "name": benchmark_id(description.env["id"]),
            "description": f"Held-out tasks of {description.env['id']}, learned in context.",
            "evaluation_framework": LIBRARY,
            "tasks": [
                {
                    "id": own,
                    "config": "transitions",
                    "split": "train",
                    "description": SCORES[own].heading,
                }
                for own in names
            ],
        }
    )


def _croissant(folder: Path, name: str, description: Description, fields: dict) -> dict:
    """Return the description of the files in `folder` as Croissant 1.0 in JSON-LD."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet"))
    kinds = {own: DTYPES[field.dtype.kind] for own, field in fields.items()}
    transitions = dict.fromkeys(PLACE, "sc:Integer") | kinds
    numbers = "task", "actor", "episode", "first_step", "length"
    of_episodes = dict.fromkeys(numbers, "sc:Integer") | {
        "task_name": "sc:Text",
        "return": "sc:Float",
        "terminated": "sc:Boolean",
    }
    lists = [own for own, field in fields.items() if field.shape]
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": name,
        "conformsTo": [f"{CROISSANT}1.0", f"{CROISSANT}RAI/1.0"],
        "description": _about(description),
        "url": f"https://huggingface.co/datasets/{benchmark_id(description.env['id'])}",
        "version": "1.0.0",
        "datePublished": datetime.now(UTC).date().isoformat(),
        "citeAs": "Laskin et al. 2022, In-context reinforcement learning with AD, arXiv 2210.14215",
        "keywords": ["reinforcement learning", "in-context learning"],
        **RESPONSIBLE,
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": path,
                "name": path,
                "contentUrl": path,
                "encodingFormat": "application/x-parquet",
                "sha256": sha256(folder / path),
            }
            for path in files
        ]
        + [
            {
                "@type": "cr:FileSet",
                "@id": "transitions-files",
                "name": "transitions-files",
                "encodingFormat": "application/x-parquet",
                "includes": "data/*.parquet",
            },
        ],
        "recordSet": [
            _record_set(
                "transitions", {"fileSet": {"@id": "transitions-files"}}, transitions, lists
            ),
            _record_set("episodes", {"fileObject": {"@id": EPISODES}}, of_episodes, []),
        ],
    }


def _record_set(name: str, source: dict, kinds: dict[str, str], lists: list[str]) -> dict:
    """Return a table of Croissant: `kinds` has the type of each column, `lists` hold lists."""
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{name}/{own}",
                "name": own,
                "dataType": kind,
                "source": source | {"extract": {"column": own}},
                **({"repeated": True} if own in lists else {}),
            }
            for own, kind in kinds.items()
        ],
    }


# The context of Croissant 1.0, whose terms are those of its vocabulary.
TERMS = """citeAs column conformsTo extract field fileProperty fileObject fileSet format includes
isLiveDataset jsonPath key md5 parentField path recordSet references regex repeated replace
separator source subField transform equivalentProperty samplingRate"""
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": CROISSANT,
    "rai": f"{CROISSANT}RAI/",
    "dct": "http://purl.org/dc/terms/",
    "sc": "https://schema.org/",
    **{term: f"cr:{term}" for term in TERMS.split()},
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
}
RESPONSIBLE = {
    "rai:dataCollection": "Every transition of simulated agents while they learn, by a program.",
    "rai:dataCollectionType": ["Software Collection"],
    "rai:dataPreprocessingProtocol": ["None: the transitions are those that the agents saw."],
    "rai:dataUseCases": ["Training and comparing methods that learn a task in their context."],
    "rai:dataLimitations": ["A model learns no more than the agents did in this world."],
    "rai:dataBiases": ["Observations are as frequent as the agents visited them."],
    "rai:dataSocialImpact": "None is known: the worlds are small simulations.",
    "rai:personalSensitiveInformation": ["None: the data are simulated."],
}
CARD = """\
---
{front}---

# {name}

{about}

A row of `transitions` is a transition: `task` is the number of the task, and the rows of an actor
stand in the order of its `step`, from the first of learning to the last. A row of `episodes` is a
whole episode, with its `return`. An array of an observation is a list of its flattened entries.

The environment:

```yaml
{env}```

The agents:

```yaml
{source}```

`ad import-histories --format parquet --from FOLDER --to mine.yaml` reads the
histories back, with the same bytes and the same split, and writes the experiment to train on them.
The Hub shows the scores of models once this repository, under the id in `eval.yaml`, is registered
as a benchmark; change that id to your own. `croissant.json` describes the columns.
"""
