"""The settings of an experiment: dataclasses, their hash, and how two experiments differ.

The defaults are those of `configs/quickstart.yaml`, but for its name and
`evaluation.temperature_known`. The string below a setting is its line in `--help`, and
`ad.config.fields.field` declares its limits.
`ad.config.parser` builds an Experiment from a YAML file and the command line;
`ad/config/constraints.py` and `component_constraints.py` relate settings to each other.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import pyrallis

from ad.config.fields import as_yaml, field, is_unused, join
from ad.config.yaml_io import YamlFile, dump_yaml
from ad.registry import ENCODERS, MEMORIES, METHODS, POSITIONS, REWARDS, SOURCES, TOKENIZERS


@dataclass(frozen=True)
class EnvConfig:
    """The environment: a family of tasks."""

    id: str = field("DarkRoom-v0")
    """environment: a world or a preset (--help env lists them), or any Gymnasium id"""
    kwargs: dict = field({})
    """settings of the environment, e.g. {size: 7, start: random}"""
    episode_length: int = field(20, at_least=1, at_most=65535)
    """env steps after which an episode is truncated; a preset has its own number"""
    tasks: Optional[list[dict]] = field(None)
    """with a Gymnasium id: settings of the environment for each task, e.g. [{g: 9}, {g: 12}]"""
    change: float = field(0.0, added=True, at_most=2**31)
    """when the task changes in a context: n >= 1: after every n episodes; below 1: the probability
    at the end of an episode; 0: never. Of a history, data.history_stride episodes count as one"""


@dataclass(frozen=True)
class SplitConfig:
    """The split into train tasks, which have histories, and held-out tasks."""

    split_seed: int = field(0, at_least=0)
    """seed of the random split into train and held-out tasks"""
    num_train_tasks: int = field(57, at_least=1)
    """number of train tasks; by default all others are held out"""
    num_held_out: Optional[int] = field(None, at_least=1, added=True)
    """number of held-out tasks; null: all tasks that are not train tasks"""
    held_out: Optional[list[list[int]]] = field(None)
    """explicit list of held-out tasks, e.g. [[0, 0], [8, 8]]; null draws them with split_seed"""
    tuning: bool = field(False)
    """whether to hold out up to 20 tasks that no published result holds out, to tune settings on"""


@dataclass(frozen=True)
class SourceConfig:
    """The source algorithm, whose learning is recorded: one agent for each task."""

    algorithm: str = field("a2c", choices=SOURCES)
    """algorithm whose learning histories are recorded"""
    env_steps: int = field(200_000, at_least=1)
    """env steps of a source agent, over all its parallel environments"""
    num_envs: int = field(10, at_least=1)
    """parallel environments of a source agent; each is one actor of its history"""
    source_seed: int = field(0, at_least=0)
    """seed of the source agents and their environments"""
    state_every: float = field(30.0, at_least=0, affects_results=False)
    """seconds between two snapshots of a collection, from which it resumes after a stop"""
    settings: dict = field({})
    """settings of the source algorithm; --help source lists those of each algorithm"""


@dataclass(frozen=True)
class DataConfig:
    """The training windows, cut from the learning histories."""

    history_stride: int = field(40, at_least=1)
    """k: a training sequence has every k-th episode of an actor, so it improves k times as fast"""
    context_length: int = field(64, at_least=1)
    """transitions in the context of the model"""
    env_steps: int = field(0, at_least=0)
    """number of env steps at the start of each history to train on; 0 trains on all of them"""
    held_out_actors: int = field(1, at_least=0)
    """number of actors of each train task that are not trained on, but give the held-out loss"""
    actors_per_task: int = field(0, at_least=0)
    """number of actors of each train task to train on; 0: all that are not held out"""
    windows_from_start: float = field(0.5, at_least=0, at_most=1)
    """fraction of training windows, or of runs of `training.segments` windows, that start where a
    history starts, if windows span episodes"""
    windows_to_end: float = field(0.0, added=True, at_least=0, at_most=1)
    """fraction of training windows that end where an episode ends"""
    best_actors: float = field(1.0, added=True, above=0, at_most=1)
    """fraction of each task's actors to train on: the ones with the largest and steadiest rise"""
    permute: str = field("none", added=True, choices=("none", "actions", "observations", "both"))
    """what to permute at random in each training window; the model must infer it in context"""
    in_memory: bool = field(True, added=True, affects_results=False)
    """whether training data is in memory; false: in temporary files in <root>/histories"""


@dataclass(frozen=True)
class ModelConfig:
    """The tokenizer and the memory."""

    encoder: str = field("factored", choices=ENCODERS)
    """encoder of observations"""
    encoders: dict = field({})
    """encoders of named parts of an observation, e.g. {image: mlp}; other parts: model.encoder"""
    tokenizer: str = field("fused", choices=TOKENIZERS)
    """tokens of a transition: one, three in a row, three side by side, or without its outcome"""
    memory: str = field("transformer", added=True, choices=MEMORIES)
    """memory: a transformer with its window, with two segments (xl) or with the best episodes
    (retrieval), or a recurrent network"""
    width: int = field(64, at_least=1)
    """width of the residual stream and of the token embeddings"""
    layers: int = field(4, at_least=0)
    """number of blocks of the memory"""
    norm: str = field("pre", added=True, choices=("pre", "none"))
    """layer normalization: before attention or GRU, before the MLP and at the end; or none"""
    heads: int = field(2, at_least=1)
    """number of heads of a transformer, a divisor of model.width; on a CPU few are faster"""
    feed_forward: int = field(256, at_least=1)
    """hidden width of the MLP in each block"""
    dropout: float = field(0.0, at_least=0, below=1)
    """dropout probability of the outputs of attention or GRU, and of the MLP"""
    attention_dropout: float = field(0.0, at_least=0, below=1)
    """dropout probability of the attention weights of a transformer"""
    next_observation: bool = field(True)
    """whether tokens include the observation that an action led to"""
    position: str = field("env_time", choices=POSITIONS)
    """position embedding"""
    positions: int = field(2000, at_least=1)
    """number of entries in the position table, for model.position window or history"""
    reward: str = field("table", choices=REWARDS)
    """reward embedding: a learned vector for each value (of more than 64 values: a projection),
    a linear map of the value, or none"""
    reward_token: str = field("after", choices=("after", "before"))
    """place of a separate reward token: after its action or before the next observation"""

    def encoder_of(self, part: str) -> str:
        """Return the name of the encoder of a part of the observation."""
        return self.encoders.get(part, self.encoder)


@dataclass(frozen=True)
class MethodConfig:
    """The in-context method: a loss on windows and a policy with a context."""

    name: str = field("algorithm_distillation", choices=METHODS)
    """in-context method: how the model is trained and how it acts"""
    settings: dict = field({})
    """settings of the method; --help method lists those of each method"""


@dataclass(frozen=True)
class TrainingConfig:
    """Training of the model: AdamW, linear warm-up, cosine decay."""

    steps: int = field(1000, at_least=1)
    """number of train steps; with many more the model memorizes the train tasks"""
    batch_size: int = field(32, at_least=1)
    """windows in a training batch"""
    segments: int = field(1, at_least=1, added=True)
    """adjacent windows that are read one after the other, with the state of a recurrent memory or
    xl carried from each to the next, in training without its gradient; rollouts carry it on"""
    micro_batches: int = field(1, at_least=1, added=True)
    """smallest number of micro-batches in a training batch; more need less memory"""
    activation_checkpointing: bool = field(False, affects_results=False, added=True)
    """whether the backward pass recomputes activations, which needs less memory and more time"""
    learning_rate: float = field(3e-3, above=0)
    """peak learning rate, reached at the end of the warm-up"""
    final_learning_rate: float = field(0.0, at_least=0)
    """learning rate of the last train step"""
    beta1: float = field(0.9, at_least=0, below=1)
    """AdamW's decay rate of the first moment"""
    beta2: float = field(0.99, at_least=0, below=1)
    """AdamW's decay rate of the second moment"""
    weight_decay: float = field(0.01, at_least=0)
    """AdamW's weight decay; it applies to matrices only"""
    warmup_steps: int = field(200, at_least=0)
    """train steps in which the learning rate rises linearly from 0 to its peak"""
    schedule_steps: int = field(0, at_least=0)
    """length of the learning-rate schedule in train steps; 0: training.steps"""
    gradient_norm: float = field(1.0, above=0)
    """norm to which a larger gradient is clipped"""
    precision: str = field("auto", choices=("auto", "float32", "bfloat16"))
    """precision of the forward pass; auto: the faster one on the device"""
    compile: bool = field(False)
    """whether to use torch.compile, which needs a C++ compiler and takes 10 to 20 s; it leaves out
    methods whose losses read hidden states: in-context Q-learning, planning and context values"""
    train_seed: int = field(0, at_least=0)
    """seed of the initial weights, the training batches and dropout"""
    eval_every: int = field(500, at_least=1, affects_results=False)
    """train steps between two evaluations during training"""
    eval_episodes: int = field(40, at_least=1, affects_results=False)
    """in-context episodes on each task in an evaluation during training"""
    checkpoint_every: int = field(200, at_least=1, affects_results=False)
    """train steps between two checkpoints"""
    keep_every: int = field(0, at_least=0, affects_results=False, added=True)
    """train steps between two checkpoints that are never removed; 0: only the newest two stay"""
    log_every: int = field(20, at_least=1, affects_results=False)
    """train steps between two lines of metrics.jsonl"""
    process_timeout: float = field(1800.0, above=0, affects_results=False, added=True)
    """seconds that a process of a data-parallel training waits for the others before it gives up"""

    @property
    def rows(self) -> int:
        """The rows of a training batch, each of which has `segments` windows."""
        return self.batch_size // self.segments


@dataclass(frozen=True)
class EvaluationConfig:
    """Rollouts of the frozen model, which learns a task in its context."""

    episodes: int = field(100, at_least=1)
    """in-context episodes of a rollout"""
    env_steps: Optional[int] = field(None, at_least=1, added=True)
    """env steps of each rollout, used in place of `episodes`; null: play `episodes`"""
    eval_seeds: int = field(5, at_least=1)
    """rollouts on each held-out task"""
    train_eval_seeds: int = field(1, at_least=1)
    """rollouts on each train task"""
    num_train_tasks: Optional[int] = field(None, at_least=1, added=True)
    """number of train tasks to evaluate on, evenly spread over all of them; null: all"""
    action: str = field("sample", choices=("sample", "greedy"))
    """how an action is chosen from the logits"""
    temperature: float = field(0.85, above=0)
    """softmax temperature of sampled actions"""
    temperature_known: Optional[float] = field(None, above=0)
    """temperature once a reward of 1 is in the context, if rewards are 0 and 1; null: the same"""
    policy: dict = field({})
    """settings of the method's policy; --help evaluation lists those of each method"""
    calibration: list[float] = field([], added=True)
    """target returns of a return-conditioned policy, for the plot of achieved returns"""
    asked_returns: list[float] = field([], added=True, affects_results=False)
    """returns that evaluations during training ask a return-conditioned policy for"""
    worlds: list[dict] = field([], affects_results=False)
    """further environments to evaluate on, each by its changes of env.kwargs, e.g. [{size: 11}];
    [{change: 25}] replaces env.change"""


@dataclass(frozen=True)
class RecordConfig:
    """The videos of a run."""

    source_videos: bool = field(True, affects_results=False)
    """whether to make a video of each source agent"""
    held_out_videos: int = field(3, at_least=0, affects_results=False)
    """number of videos of the model on held-out tasks"""


@dataclass(frozen=True)
class Experiment:
    """The name, folder, device and threads of a run; every other setting is in a section."""

    name: str = field("unnamed", affects_results=False)
    """name of the run: it is written to logs/<name> and videos/<name>"""
    root: str = field(".", affects_results=False)
    """folder for histories/, logs/ and videos/"""
    device: str = field("auto", choices=("auto", "cpu", "cuda"), affects_results=False)
    """device of training and evaluation; auto: cuda if there is a GPU, else cpu"""
    threads: int = field(0, at_least=0, affects_results=False)
    """number of CPU threads; 0: all"""
    env: EnvConfig = field(EnvConfig())
    split: SplitConfig = field(SplitConfig())
    source: SourceConfig = field(SourceConfig())
    data: DataConfig = field(DataConfig())
    model: ModelConfig = field(ModelConfig())
    method: MethodConfig = field(MethodConfig())
    training: TrainingConfig = field(TrainingConfig())
    evaluation: EvaluationConfig = field(EvaluationConfig())
    record: RecordConfig = field(RecordConfig())

    @property
    def sequence_length(self) -> int:
        """The transitions of a training sequence: of a window, or of all its segments."""
        return self.data.context_length * self.training.segments

    @property
    def folder(self) -> Path:
        """The folder of the run, logs/<name>."""
        return Path(self.root) / "logs" / self.name


def dump(config: Any) -> str:
    """Return the configuration with all its defaults as YAML text, which `load_file` can read."""
    return dump_yaml(pyrallis.encode(config))


def parse_dump(text: str) -> Experiment:
    """Return the Experiment that `dump` wrote, without validation of its values.

    Raises ValueError if `text` is not YAML or has unknown settings.
    """
    file = YamlFile(text)
    if file.problems:
        raise ValueError(file.problems[0].text)
    try:
        return pyrallis.decode(Experiment, file.data)
    except Exception as error:  # pyrallis raises errors of its own and of Python
        raise ValueError(" ".join(str(error).split())) from error


def config_hash(*configs: Any) -> str:
    """Return the SHA-256 (hex) of the settings that affect results.

    `configs`: an Experiment or some of its sections.
    """
    settings = [result_settings(config, hashed=True) for config in configs]
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def diff(old: Any, new: Any) -> dict[str, Any]:
    """Return dotted path -> value in `new` of each setting that differs and affects results."""
    before, after = result_settings(old), result_settings(new)
    return {
        path: after.get(path)
        for path in before | after
        if (path in before, before.get(path)) != (path in after, after.get(path))
    }


def diff_text(old: Any, new: Any) -> list[str]:
    """Return 'source.env_steps: 200000 -> 100000' for each setting of `diff`."""
    before, after = result_settings(old), result_settings(new)
    return [f"{path}: {_value(before, path)} -> {_value(after, path)}" for path in diff(old, new)]


def result_settings(value: Any, path: str = "", hashed: bool = False) -> dict[str, Any]:
    """Return dotted path -> value of each setting below `path` that affects results.

    `hashed` leaves out the added ones (`ad.config.fields.field`) that have their default.
    """
    if dataclasses.is_dataclass(value):
        value = {
            entry.name: getattr(value, entry.name)
            for entry in dataclasses.fields(value)
            if entry.metadata["affects_results"]
            and not (hashed and is_unused(entry, getattr(value, entry.name)))
        }
    if not isinstance(value, dict):
        return {path: value}
    parts = [result_settings(inner, join(path, name), hashed) for name, inner in value.items()]
    return {path: leaf for part in parts for path, leaf in part.items()}


def _value(values: dict[str, Any], path: str) -> str:
    return as_yaml(values[path]) if path in values else "not set"
