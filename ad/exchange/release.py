"""The release of a trained model for others: `logs/<run>/release/`, which holds data and no code.

model.safetensors   the parameters (float32), with the spec of the world in the header
config.yaml         the resolved configuration
README.md           the model card
SHA256SUMS          hashes of the three for `sha256sum -c`, as safetensors has no checksum
"""

import json
from dataclasses import asdict
from pathlib import Path

from ad.config.schema import Experiment, config_hash, parse_dump
from ad.data.spec import spec_from_dict
from ad.errors import ConfigError, CorruptError, MachineError
from ad.evaluation.evaluate import load_model
from ad.evaluation.summary import SUMMARY, is_evaluated
from ad.methods import build_method
from ad.models.sequence_model import SequenceModel
from ad.registry import ENCODERS, METHODS, POSITIONS, REWARDS, TOKENIZERS
from ad.reporting.tables import run_table
from ad.runtime.files import atomic_write, read_checked_json, sha256, write_text
from ad.runtime.run import Run

FILES = ("model.safetensors", "config.yaml", "README.md")
SUMS = "SHA256SUMS"


def release(run: Run) -> Path:
    """Write the release of a trained run. Returns its folder.

    Raises ConfigError if the run is not trained or its model is that of an online method,
    MachineError without the package safetensors.
    """
    if run.learns_online:
        raise ConfigError(
            f"a release holds a sequence model, which {run.config.method.name} has not"
        )
    safetensors, model = _safetensors(), load_model(run)
    folder = run.folder / "release"
    weights = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    header = {"format": "pt", "spec": json.dumps(asdict(model.spec))}
    with atomic_write(folder / "model.safetensors") as temporary:
        safetensors.torch.save_file(weights, temporary, header)
    config = (run.folder / "config.yaml").read_text(encoding="utf-8")
    write_text(folder / "config.yaml", config)
    write_text(folder / "README.md", card(run, sum(w.numel() for w in weights.values())))
    write_text(folder / SUMS, "".join(f"{sha256(folder / name)}  {name}\n" for name in FILES))
    return folder


def load_release(folder: Path, trust_code: bool = False) -> SequenceModel:
    """Return the released model, frozen, on the CPU.

    With `trust_code` it may be of classes outside the suite, which its configuration names and
    which are imported. Raises ConfigError for such a model without it, CorruptError unless all
    files are as they were written, MachineError without the package safetensors.
    """
    safetensors = _safetensors()
    _verify(folder)
    try:
        config = parse_dump((folder / "config.yaml").read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptError(f"{folder} is not a release: {error}") from error
    outside = _outside_classes(config)
    if outside and not trust_code:
        raise ConfigError(
            f"the model of {folder} needs {', '.join(outside)}: load_release(folder, "
            "trust_code=True) imports what its configuration names"
        )
    try:
        with safetensors.safe_open(folder / "model.safetensors", "pt") as file:
            spec = spec_from_dict(json.loads(file.metadata()["spec"]))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        model = build_method(config.method).build(spec, config.model, "torch")
        model.load_state_dict(weights)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CorruptError(f"{folder} is not a release: {error}") from error
    return model.eval().requires_grad_(False)


def _outside_classes(config: Experiment) -> list[str]:
    """Return the components of a model that are not of the suite, by their names."""
    model = config.model
    chosen = (
        (METHODS, config.method.name),
        (TOKENIZERS, model.tokenizer),
        (POSITIONS, model.position),
        (REWARDS, model.reward),
        *((ENCODERS, name) for name in (model.encoder, *model.encoders.values())),
    )
    return [name for registry, name in chosen if name not in registry]


def card(run: Run, num_parameters: int) -> str:
    """Return the model card of a run as Markdown: its model, training data and scores."""
    scores = "It is not evaluated."
    if is_evaluated(run):
        results = read_checked_json(run.folder / SUMMARY)
        scores = run_table(results).compact().markdown()
    return CARD.format(
        config=run.config,
        num_parameters=num_parameters,
        train=len(run.split.train_tasks),
        held_out=len(run.split.held_out_tasks),
        method=run.config.method.name.replace("_", " "),
        config_hash=config_hash(run.config),
        split_hash=run.split.hash,
        scores=scores.rstrip(),
    )


CARD = """\
---
library_name: algorithm-distillation
license: mit
tags: [reinforcement-learning, in-context-learning]
---

# {config.name}

A causal transformer of {num_parameters:,} parameters that acts on its past transitions, and so
learns in context to solve tasks of {config.env.id} that it was not trained on. Method: {method}.

- Trained for {config.training.steps:,} steps on the learning histories of {train} tasks \
({config.source.algorithm}, {config.source.env_steps:,}
  env steps each); {held_out} tasks were held out.
- Configuration {config_hash}
- Split {split_hash}

## Scores

{scores}

## Use

```python
from pathlib import Path
from ad.exchange.release import load_release

model = load_release(Path("."))  # a SequenceModel; checks SHA256SUMS
```

Made for research: it was trained in the world above and in no other.
"""


def _verify(folder: Path) -> None:
    """Raise CorruptError unless SHA256SUMS lists all files with their hashes."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        if [line.split("  ")[1:] for line in lines] != [[name] for name in FILES]:
            raise ValueError(f"{SUMS} does not list its files")
        for line in lines:
            expected, name = line.split("  ")
            if sha256(folder / name) != expected:
                raise ValueError(f"the SHA-256 of {name} is not the one in {SUMS}")
    except (FileNotFoundError, ValueError) as error:
        raise CorruptError(f"the release {folder} is not what was written: {error}") from error


def _safetensors():
    """Return the package safetensors, with `safetensors.torch`. Raises MachineError without it."""
    try:
        import safetensors.torch
    except ImportError as error:
        raise MachineError(
            "the package safetensors is not installed: pip install -e '.[release]'"
        ) from error
    return safetensors
