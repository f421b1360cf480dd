"""The release of a trained model for others: `logs/<run>/release/`, which holds data and no code.

model.safetensors    the parameters (float32), with the spec of the world in the header
config.yaml          the resolved configuration
README.md            the model card
.eval_results/*.yaml the scores on held-out tasks as Hugging Face reads them, if there are any
SHA256SUMS           hashes of the others for `sha256sum -c`, as safetensors has no checksum
"""

import json
from dataclasses import asdict
from pathlib import Path

from ad.config.schema import Experiment, parse_dump
from ad.data.spec import spec_from_dict
from ad.errors import ConfigError, CorruptError, MachineError
from ad.evaluation.evaluate import load_model
from ad.exchange.card import card, eval_results, read_results
from ad.exchange.policy import ReleasedPolicy
from ad.methods import build_method
from ad.models.sequence_model import SequenceModel
from ad.registry import ENCODERS, MEMORIES, METHODS, POSITIONS, REWARDS, TOKENIZERS
from ad.runtime.console import info
from ad.runtime.files import atomic_write, remove, sha256, write_text
from ad.runtime.run import Run

FILES = ("model.safetensors", "config.yaml", "README.md")
EVAL_RESULTS = ".eval_results/algorithm_distillation.yaml"  # of a run that is evaluated
SUMS = "SHA256SUMS"


def release(run: Run) -> Path:
    """Write the release of a trained run, print its folder and return it.

    Raises ConfigError if the run is not trained or its model is no sequence model, MachineError
    without the package safetensors.
    """
    safetensors, model = _safetensors(), load_model(run)
    if not isinstance(model, SequenceModel):
        raise ConfigError(
            f"a release holds a sequence model, which {run.config.method.name} has not"
        )
    folder = run.folder / "release"
    weights = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    header = {"format": "pt", "spec": json.dumps(asdict(model.spec))}
    with atomic_write(folder / "model.safetensors") as temporary:
        safetensors.torch.save_file(weights, temporary, header)
    config = (run.folder / "config.yaml").read_text(encoding="utf-8")
    write_text(folder / "config.yaml", config)
    write_text(folder / "README.md", card(run, sum(w.numel() for w in weights.values())))
    names = list(FILES)
    remove(folder / EVAL_RESULTS)
    if results := read_results(run):
        write_text(folder / EVAL_RESULTS, eval_results(run, results))
        names.append(EVAL_RESULTS)
    write_text(folder / SUMS, "".join(f"{sha256(folder / name)}  {name}\n" for name in names))
    info(f"release: {folder}")
    return folder


def load_release(folder: str | Path, trust_code: bool = False) -> ReleasedPolicy:
    """Return the policy of the released model, frozen, on the CPU.

    With `trust_code` the model may be of classes outside the suite, which its configuration names
    and which are imported. Raises ConfigError for such a model without it, CorruptError unless all
    files are as they were written, MachineError without the package safetensors.
    """
    safetensors, folder = _safetensors(), Path(folder)
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
        model = build_method(config.method).build(spec, config.model)
        model.load_state_dict(weights)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CorruptError(f"{folder} is not a release: {error}") from error
    return ReleasedPolicy(model.eval().requires_grad_(False), config)


def _outside_classes(config: Experiment) -> list[str]:
    """Return the components of a model that are not of the suite, by their names."""
    model = config.model
    chosen = (
        (METHODS, config.method.name),
        (TOKENIZERS, model.tokenizer),
        (POSITIONS, model.position),
        (MEMORIES, model.memory),
        (REWARDS, model.reward),
        *((ENCODERS, name) for name in (model.encoder, *model.encoders.values())),
    )
    return [name for registry, name in chosen if name not in registry]


def _verify(folder: Path) -> None:
    """Raise CorruptError unless SHA256SUMS lists all files with their hashes."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        names = [line.partition("  ")[2] for line in lines]
        if names not in ([*FILES], [*FILES, EVAL_RESULTS]):
            raise ValueError(f"{SUMS} does not list its files")
        for line, name in zip(lines, names, strict=True):
            if sha256(folder / name) != line.partition("  ")[0]:
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
