"""Import: write the experiment of a data set that was recorded elsewhere, and its histories."""

from dataclasses import asdict
from pathlib import Path

from ad.collection.collect import collect
from ad.config.constraints import name_is_a_folder_name
from ad.config.parser import load_file
from ad.config.schema import EnvConfig, ModelConfig, SplitConfig
from ad.config.world import configured_world
from ad.config.yaml_io import dump_yaml
from ad.data.histories import HistoryStore
from ad.errors import ConfigError
from ad.exchange.foreign import SOURCE, WORLD, places
from ad.exchange.formats import Contents, Description, new_format
from ad.exchange.recorded import describe_parts
from ad.registry import ENCODERS
from ad.runtime.console import info
from ad.runtime.files import write_text
from ad.runtime.run import Run
from envs.registry import error_text
from envs.spaces import Part, observation_parts

ENCODERS_OF_ARRAYS = ("bag_of_words", "mlp")  # tried after the default encoder


def import_histories(
    format: str,
    place: str,
    experiment: Path,
    root: str = ".",
    fresh: bool = False,
    trust_code: bool = False,
) -> None:
    """Write the YAML file `experiment` of the data set at `place`, and collect its histories.

    Histories that are there already are kept unless `fresh`. Raises ConfigError for a data set that
    the suite cannot read, whose world is outside the suite unless `trust_code`, and if the file
    holds another experiment unless `fresh`.
    """
    if experiment.suffix != ".yaml":
        raise ConfigError(f"--to must be the path of a .yaml file, not {experiment}")
    if text := name_is_a_folder_name(experiment.stem):
        raise ConfigError(f"--to: the name of the experiment {text}")
    chosen = new_format(format)
    contents = chosen.open(place).contents
    described = contents.description.env if contents.description else {}
    if (foreign := places({"env": described})) and not trust_code:
        text = f"{place} names {foreign[0]!r:.200}, whose code would run"
        raise ConfigError(f"{text}: --trust-code true runs it")
    try:
        settings = _experiment(contents, format, place, experiment.stem)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        text = f"the world that {place} describes cannot be made"
        raise ConfigError(f"{text}: {error_text(error)}") from error
    text = dump_yaml(settings)
    if experiment.exists() and experiment.read_bytes() != text.encode() and not fresh:
        raise ConfigError(
            f"{experiment} holds another experiment: choose another --to, or overwrite it with "
            "--fresh true"
        )
    write_text(experiment, text)
    run = Run(load_file(experiment, root=root))
    collected, total = collect(run, fresh), len(run.split.train_tasks)
    folder = HistoryStore(run.config).path
    info(f"import: {collected} of {total} histories imported now, all are in {folder}")
    info(f"import: without {chosen.lost}; the experiment is {experiment}")


def _experiment(contents: Contents, format_name: str, place: str, name: str) -> dict:
    """Return the settings of an experiment with the histories of a data set, in plain types."""
    steps, num_actors = contents.steps, contents.num_actors
    description, parts = contents.description, contents.parts
    env, split = _described_world(description) if description else _recorded_world(contents)
    seed, evaluation = {}, {}
    if description:
        world = configured_world(EnvConfig(**description.env))
        parts = observation_parts(world)
        if split.get("tuning"):
            seed = {"source_seed": description.source["source_seed"]}
        if world.life:
            evaluation = {"episodes": world.life // env["episode_length"]}
    settings = {
        "name": name,
        "env": env,
        "split": split,
        "source": {
            "algorithm": SOURCE,
            "env_steps": steps * num_actors,
            "num_envs": num_actors,
            "settings": {"format": format_name, "place": place},
            **seed,
        },
        "data": {"history_stride": 1, "held_out_actors": int(num_actors > 1)},
    }
    rewards = {} if description else {"reward": "projection"}  # which takes any number of values
    model = _encoders(parts) | rewards
    sections = {"model": model, "evaluation": evaluation}
    return settings | {name: section for name, section in sections.items() if section}


def _described_world(description: Description) -> tuple[dict, dict]:
    """Return the sections env and split of the experiment that was exported, without defaults."""
    defaults = asdict(EnvConfig()), asdict(SplitConfig())
    sections = description.env, description.split
    kept = [
        {key: value for key, value in section.items() if default.get(key) != value}
        for section, default in zip(sections, defaults, strict=True)
    ]
    env = {"id": description.env["id"], "episode_length": description.env["episode_length"]}
    return env | kept[0], kept[1]


def _recorded_world(contents: Contents) -> tuple[dict, dict]:
    """Return the sections env and split of a data set that describes only its spaces."""
    kwargs = {
        "observation": describe_parts(contents.parts),
        "num_actions": contents.num_actions,
        "num_tasks": contents.num_tasks,
    }
    env = {"id": WORLD, "kwargs": kwargs, "episode_length": contents.episode_length}
    return env, {"num_train_tasks": contents.num_tasks}


def _encoders(parts: dict[str, Part]) -> dict:
    """Return the settings of the model that name encoders, {} if the default fits all `parts`."""
    tried = (ModelConfig().encoder, *ENCODERS_OF_ARRAYS)
    chosen = {
        name: next(encoder for encoder in tried if ENCODERS.load(encoder).supports(part))
        for name, part in parts.items()
    }
    if set(chosen.values()) == {ModelConfig().encoder}:
        return {}
    return {"encoder": chosen[""]} if "" in chosen else {"encoders": chosen}
