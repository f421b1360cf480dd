"""The release of a trained model for others: `logs/<run>/release/`, which holds data and no code.

model.safetensors    the parameters (float32), with the spec of the world in the header
config.yaml          the resolved configuration
README.md            the model card
.eval_results/*.yaml the scores on held-out tasks as Hugging Face reads them, if there are any
claim.json           the scores as results.json has them, the fingerprint of the checkpoint, and
                     what both were made with, if the run is evaluated
SHA256SUMS           hashes of the others for `sha256sum -c`, as safetensors has no checksum

An entry (`ad.entry`) is the release of an evaluated run in one file: a tar, which has no
compression and can be checked member by member in memory.
"""

import io
import json
import tarfile
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

from ad.config.schema import Experiment, dump, parse_dump
from ad.data.spec import spec_from_dict
from ad.errors import ConfigError, CorruptError, MachineError
from ad.evaluation.evaluate import load_model
from ad.exchange.card import card, eval_results, read_results
from ad.exchange.policy import ReleasedPolicy
from ad.methods import build_method, build_model
from ad.models.sequence_model import SequenceModel
from ad.registry import ENCODERS, MEMORIES, METHODS, POSITIONS, REWARDS, TOKENIZERS
from ad.runtime.console import info
from ad.runtime.files import atomic_write, remove, sha256, write_json, write_text
from ad.runtime.run import Run
from ad.training import checkpoints
from envs.extras import missing

WEIGHTS = "model.safetensors"
FILES = (WEIGHTS, "config.yaml", "README.md")
EVAL_RESULTS, CLAIM = ".eval_results/algorithm_distillation.yaml", "claim.json"
PROGRAM = "program.py"  # in place of the weights
EVALUATED = (*FILES, EVAL_RESULTS, CLAIM)  # of a run that is evaluated
SUMS = "SHA256SUMS"
MOST_BYTES = {WEIGHTS: 64_000_000}  # of a member of an entry
MOST_BYTES_OF_OTHERS = 4_000_000


def release(run: Run, folder: Path | None = None) -> Path:
    """Write the release of a trained run, by default into its own folder; print and return where.

    Raises ConfigError if the run is not trained or its model is no sequence model, MachineError
    without the package safetensors.
    """
    safetensors, model = _safetensors(), load_model(run)
    if not isinstance(model, SequenceModel):
        raise ConfigError(
            f"a release holds a sequence model, which {run.config.method.name} has not"
        )
    folder = folder or run.folder / "release"
    weights = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    header = {"format": "pt", "spec": json.dumps(asdict(model.spec))}
    with atomic_write(folder / WEIGHTS) as temporary:
        safetensors.torch.save_file(weights, temporary, header)
    write_text(folder / "config.yaml", dump(replace(run.config, root=".")))
    write_text(folder / "README.md", card(run, sum(w.numel() for w in weights.values())))
    remove(folder / EVAL_RESULTS)
    remove(folder / CLAIM)
    if results := read_results(run):
        write_text(folder / EVAL_RESULTS, eval_results(run, results))
        newest = checkpoints.newest(run.folder / "checkpoints")
        assert newest is not None  # the run has been evaluated
        fingerprint = checkpoints.load(newest)["fingerprint"]
        write_json(folder / CLAIM, claim_of(run, results) | {"fingerprint": fingerprint})
    write_sums(folder, EVALUATED if results else FILES)
    info(f"release: {folder}")
    return folder


def pack(folder: Path, names: tuple[str, ...], path: Path) -> Path:
    """Write the files `names` of `folder` as an entry at `path`. ConfigError for a large one."""
    for name in names:
        if (folder / name).stat().st_size > (most := MOST_BYTES.get(name, MOST_BYTES_OF_OTHERS)):
            raise ConfigError(f"{folder / name} has more than the {most:,} bytes of an entry")
    with atomic_write(path) as temporary:
        temporary.write_bytes(_packed({name: (folder / name).read_bytes() for name in names}))
    return path


def unpack(path: Path, folder: Path, *names: tuple[str, ...]) -> None:
    """Write the files of the entry at `path` into `folder`, once all of it is checked.

    `names` are the lists of files that an entry may have. Raises ConfigError if there is no file,
    CorruptError for anything that `pack` does not write: another member, a link, a member that is
    there twice or too large, compression, bytes between and behind the members, a wrong hash.
    """
    members = _members(path, {name for own in names for name in own})
    if tuple(members) not in [(*own, SUMS) for own in names]:
        raise CorruptError(f"{path} is no entry as `ad submit` writes it: it has other members")
    for name, content in members.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    verify_sums(folder, *names, what=f"the entry {path}")


def _members(path: Path, known: set[str]) -> dict[str, bytes]:
    """Return the content of each member of an entry by its name. Raises as `unpack` does."""
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    most = {name: MOST_BYTES.get(name, MOST_BYTES_OF_OTHERS) for name in (*known, SUMS)}
    if path.stat().st_size > sum(most.values()) + 2**16:
        raise CorruptError(f"{path} is no entry: it has more than {sum(most.values()):,} bytes")
    content, members = path.read_bytes(), {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as file:
            for member in file:
                name = member.name
                if name not in most:
                    raise ValueError(f"it has the member {name!r:.80}, which no entry has")
                if not member.isreg():
                    raise ValueError(f"its member {name} is a link or no file")
                if name in members:
                    raise ValueError(f"its member {name} is there twice")
                if member.size > most[name]:
                    raise ValueError(f"its member {name} has more than {most[name]:,} bytes")
                opened = file.extractfile(member)
                if opened is None:
                    raise ValueError(f"its member {name} is no file")
                members[name] = opened.read()
        if missing := [name for name in ("config.yaml", CLAIM, SUMS) if name not in members]:
            raise ValueError(f"it lacks {missing[0]}")
        if _packed(members) != content:
            raise ValueError("it has bytes that are in no member, or properties of members")
    except (tarfile.TarError, ValueError, EOFError, OverflowError, RecursionError) as error:
        raise CorruptError(f"{path} is no entry as `ad submit` writes it: {error}") from error
    return members


def _packed(members: dict[str, bytes]) -> bytes:
    """Return a tar whose members have a name and a content, and no other property."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as file:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def claim_of(run: Run, results: dict) -> dict:
    """Return the claim that an evaluation of `run` supports; it says nothing of any training."""
    return {
        "splits": results["splits"],
        "evaluated_on": results["evaluated_on"],
        "version": version("algorithm-distillation"),
        "split": run.split.hash,
    }


def load_release(folder: str | Path, trust_code: bool = False) -> ReleasedPolicy:
    """Return the policy of the released model, frozen, on the CPU.

    With `trust_code` the model may be of classes outside the suite, which its configuration names
    and which are imported. Raises ConfigError for such a model without it and for a folder that is
    no release, CorruptError unless all files are as they were written, MachineError without the
    package safetensors.
    """
    safetensors, folder = _safetensors(), Path(folder)
    if not (folder / SUMS).exists():
        raise ConfigError(f"{folder} is no release: `ad release` writes one of a trained run")
    verify_sums(folder, FILES, EVALUATED)
    try:
        config = parse_dump((folder / "config.yaml").read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptError(f"{folder} is not a release: {error}") from error
    outside = outside_classes(config)
    if outside and not trust_code:
        raise ConfigError(
            f"the model of {folder} needs {', '.join(outside)}: load_release(folder, "
            "trust_code=True), or `ad play --trust-code true`, imports them"
        )
    try:
        with safetensors.safe_open(folder / WEIGHTS, "pt") as file:
            spec = spec_from_dict(json.loads(file.metadata()["spec"]))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        model = build_model(build_method(config.method), spec, config)
        model.load_state_dict(weights)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CorruptError(f"{folder} is not a release: {error}") from error
    return ReleasedPolicy(model.eval().requires_grad_(False), config)


def outside_classes(config: Experiment) -> list[str]:
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


def write_sums(folder: Path, names: tuple[str, ...]) -> None:
    """Write SHA256SUMS with the hashes of the files `names` of `folder`."""
    write_text(folder / SUMS, "".join(f"{sha256(folder / name)}  {name}\n" for name in names))


def verify_sums(folder: Path, *expected: tuple[str, ...], what: str = "") -> None:
    """Raise CorruptError unless SHA256SUMS lists files as one of `expected`, with their hashes."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        names = tuple(line.partition("  ")[2] for line in lines)
        if names not in expected:
            raise ValueError(f"{SUMS} does not list its files")
        for line, name in zip(lines, names, strict=True):
            if sha256(folder / name) != line.partition("  ")[0]:
                raise ValueError(f"the SHA-256 of {name} is not the one in {SUMS}")
    except (FileNotFoundError, ValueError) as error:
        what = what or f"the release {folder}"
        raise CorruptError(f"{what} is not what was written: {error}") from error


def _safetensors():
    """Return the package safetensors, with `safetensors.torch`. Raises MachineError without it."""
    if text := missing("release"):
        raise MachineError(f"a release {text}")
    import safetensors.torch

    return safetensors
