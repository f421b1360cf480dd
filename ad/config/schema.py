"""The configuration: one `Experiment` is one row of the benchmark; every verb reads the same one.

The defaults are those of `configs/quickstart.yaml`, the comment on a field's line is its help text,
and `setting` declares its limits. `ad.config.parser.load` builds an Experiment from a YAML file and
the command line; the rules across fields are in `ad/config/constraints.py`.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import pyrallis

from ad.config import yaml_io as strict_yaml
from ad.config.fields import join, setting, shown
from ad.registry import BACKENDS, REWARDS, TOKENIZERS

# A comment is a setting's help text only on the line on which the setting begins.


@dataclass(frozen=True)
class EnvConfig:
    """The world: one task of it is an MDP with its hidden goal."""

    id: str = setting("DarkRoom-v0")  # a world of envs.REGISTRY, or any Gymnasium id
    kwargs: dict = setting({})  # the world's own settings, e.g. size, random_start
    episode_length: int = setting(20, at_least=1, at_most=65535)  # steps until truncation
    tasks: Optional[list[dict]] = setting(None)  # Gymnasium ids only: the kwargs of each task


@dataclass(frozen=True)
class SplitConfig:
    """Which tasks have histories (train) and which are never seen in training (held-out)."""

    split_seed: int = setting(0, at_least=0)  # of the random permutation of all tasks
    num_train_tasks: int = setting(57, at_least=1)  # the others are held out
    held_out: Optional[list[list[int]]] = setting(None)  # the held-out tasks themselves, no seed


@dataclass(frozen=True)
class SourceConfig:
    """The source algorithm: one agent a task learns, and its learning is recorded."""

    algorithm: str = setting("a2c")  # a name in ad.registry.SOURCES
    env_steps: int = setting(200_000, at_least=1)  # per agent, over all its environments
    num_envs: int = setting(10, at_least=1)  # parallel environments (streams) of an agent
    source_seed: int = setting(0, at_least=0)  # of the agents and their environments
    state_every: float = setting(30.0, at_least=0, free=True)  # seconds between saved states
    settings: dict = setting({})  # the algorithm's own, see the end of this list


@dataclass(frozen=True)
class DataConfig:
    """How histories become training windows."""

    history_stride: int = setting(40, at_least=1)  # every k-th episode of a stream is kept
    context_length: int = setting(64, at_least=1)  # transitions the model looks back on
    env_steps: int = setting(0, at_least=0)  # of a history that count, its first; 0 is all
    held_out_actors: int = setting(1, at_least=0)  # streams of a train task kept for held-out loss
    actors_per_task: int = setting(0, at_least=0)  # of the others, how many to train on; 0 is all
    windows_from_start: float = setting(0.5, at_least=0, at_most=1)  # fraction of them


@dataclass(frozen=True)
class ModelConfig:
    """The transformer and how it reads transitions."""

    encoder: str = setting("factored")  # of observations, a name in ad.registry.ENCODERS
    tokenizer: str = setting("fused", choices=TOKENIZERS)  # of tokens, see ad/models/tokenizer.py
    width: int = setting(64, at_least=1)  # of the residual stream
    layers: int = setting(4, at_least=1)  # transformer blocks
    heads: int = setting(2, at_least=1)  # of attention; 2 of 32 halve the step of 4 of 16 on a CPU
    feed_forward: int = setting(256, at_least=1)  # hidden width of a block's MLP
    dropout: float = setting(0.0, at_least=0, below=1)  # after attention and MLP
    attention_dropout: float = setting(0.0, at_least=0, below=1)  # of attention weights
    next_observation: bool = setting(True)  # tokens show where the last action led
    position: str = setting("env_time")  # of a token, a name in ad.registry.POSITIONS
    positions: int = setting(2000, at_least=1)  # entries of its table, where it counts decisions
    reward: str = setting("table", choices=REWARDS)  # how a reward becomes a vector
    reward_token: str = setting("after", choices=("after", "before"))  # separate: after its action


@dataclass(frozen=True)
class MethodConfig:
    """The in-context method: a loss on windows and a memory in a rollout."""

    name: str = setting("algorithm_distillation")  # a name in ad.registry.METHODS
    settings: dict = setting({})  # the method's own, see the end of this list


@dataclass(frozen=True)
class TrainingConfig:
    """Optimisation of the transformer (AdamW, linear warm-up, cosine)."""

    steps: int = setting(1000, at_least=1)  # optimizer steps; more memorise the train goals
    batch_size: int = setting(32, at_least=1)  # windows a step
    learning_rate: float = setting(3e-3, above=0)  # after warm-up
    final_learning_rate: float = setting(0.0, at_least=0)  # at the last step
    beta1: float = setting(0.9, at_least=0, below=1)  # of AdamW
    beta2: float = setting(0.99, at_least=0, below=1)  # of AdamW
    weight_decay: float = setting(0.01, at_least=0)  # of AdamW
    warmup_steps: int = setting(200, at_least=0)  # from 0 to learning_rate
    gradient_norm: float = setting(1.0, above=0)  # clip
    label_smoothing: float = setting(0.0, at_least=0, below=1)  # of the action targets
    action_dropout: float = setting(0.0, at_least=0, below=1)  # P(hide past action)
    precision: str = setting("auto", choices=("auto", "float32", "bfloat16"))  # auto: the faster
    compile: bool = setting(False)  # torch.compile: needs a C++ compiler, 10 to 20 s
    train_seed: int = setting(0, at_least=0)  # of weights, batches and dropout
    eval_every: int = setting(500, at_least=1, free=True)  # steps between evaluations in training
    eval_episodes: int = setting(40, at_least=1, free=True)  # in-context episodes of those
    checkpoint_every: int = setting(200, at_least=1, free=True)  # steps
    log_every: int = setting(20, at_least=1, free=True)  # steps
    max_bad_batches: int = setting(5, at_least=0, free=True)  # in a row: not finite, skipped


@dataclass(frozen=True)
class EvaluationConfig:
    """In-context rollouts of the frozen model."""

    episodes: int = setting(100, at_least=1)  # in-context episodes of a task
    eval_seeds: int = setting(5, at_least=1)  # how many rollouts of a held-out task
    train_eval_seeds: int = setting(1, at_least=1)  # how many rollouts of a train task
    action: str = setting("sample", choices=("sample", "greedy"))  # how actions follow from logits
    temperature: float = setting(0.85, above=0)  # of the sampling
    worlds: list[dict] = setting([], free=True)  # others to play, each by what replaces env.kwargs


@dataclass(frozen=True)
class RecordConfig:
    """The videos."""

    source_videos: bool = setting(True, free=True)  # one of each source agent
    held_out_videos: int = setting(3, at_least=0, free=True)  # how many in-context rollouts
    fps: int = setting(8, at_least=1, at_most=120, free=True)  # frames a second


@dataclass(frozen=True)
class TuneConfig:
    """The search for settings of the source algorithm; no other verb depends on it."""

    grid: dict = setting({})  # source setting: [its values], e.g. {discount: [0.9, 0.99]}
    samples: int = setting(0, at_least=0)  # how many at random between those; 0: the whole grid
    num_tasks: int = setting(4, at_least=1)  # train tasks, at most, that each is tried on
    tune_seed: int = setting(0, at_least=0)  # of the random settings
    rank_by: str = setting("area", choices=("area", "pace"), free=True)  # the best stands first
    rise_windows: float = setting(1.0, above=0, free=True)  # context windows: wanted pace


@dataclass(frozen=True)
class Experiment:
    """One row of the benchmark: what `python -m scripts.<verb> --config_path <row>.yaml` reads."""

    name: str = setting("quickstart", free=True)  # of the run: logs/<name>, videos/<name>
    root: str = setting(".", free=True)  # the folder of histories/, logs/ and videos/
    device: str = setting("auto", choices=("auto", "cpu", "cuda"), free=True)  # auto: cuda if any
    backend: str = setting("auto", choices=("auto", *BACKENDS), free=True)  # of the transformer
    threads: int = setting(0, at_least=0, free=True)  # of the CPU; 0 is all
    env: EnvConfig = field(default_factory=EnvConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    source: SourceConfig = field(default_factory=SourceConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    record: RecordConfig = field(default_factory=RecordConfig)
    tune: TuneConfig = field(default_factory=TuneConfig, metadata={"free": True})

    @property
    def folder(self) -> Path:
        """Where the run is: logs/<name>."""
        return Path(self.root) / "logs" / self.name


def dump(config: Any) -> str:
    """The resolved configuration as YAML text that `load` reads back to an equal one."""
    return strict_yaml.write(pyrallis.encode(config))


def parse_dump(text: str) -> Experiment:
    """Return the Experiment that `dump` wrote, without a check of its values.

    Raises ValueError if `text` is not YAML or names settings that there are not.
    """
    document = strict_yaml.Document(text)
    if document.problems:
        raise ValueError(document.problems[0].text)
    try:
        return pyrallis.decode(Experiment, document.data)
    except Exception as error:  # pyrallis raises errors of its own and of Python
        raise ValueError(" ".join(str(error).split())) from error


def config_hash(*configs: Any) -> str:
    """SHA-256 (hex) of an Experiment, or of some of its sections, without the free settings."""
    text = json.dumps([_binding(config) for config in configs], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def changes(old: Any, new: Any) -> dict[str, Any]:
    """Dotted path -> its value in `new`, of each setting that differs and is not free."""
    before, after = _binding(old), _binding(new)
    return {
        path: after.get(path)
        for path in before | after
        if (path in before, before.get(path)) != (path in after, after.get(path))
    }


def difference(old: Any, new: Any) -> list[str]:
    """'source.env_steps: 200000 -> 100000' for each setting that differs and is not free."""
    before, after = _binding(old), _binding(new)
    return [
        f"{path}: {_shown(before, path)} -> {_shown(after, path)}" for path in changes(old, new)
    ]


def _binding(config: Any) -> dict[str, Any]:
    """Dotted path -> value of every setting that can change a result."""
    values = {}
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if not entry.metadata.get("free"):
            nested = _binding(value) if dataclasses.is_dataclass(value) else value
            values |= _flat(entry.name, nested)
    return values


def _flat(path: str, value: Any) -> dict[str, Any]:
    """A dict as an entry for each value in it, at dotted paths; anything else as one entry."""
    if not isinstance(value, dict):
        return {path: value}
    parts = [_flat(join(path, name), inner) for name, inner in value.items()]
    return {deep: leaf for part in parts for deep, leaf in part.items()}


def _shown(values: dict[str, Any], path: str) -> str:
    return shown(values[path]) if path in values else "not set"
