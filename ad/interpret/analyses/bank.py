"""Banks of situations: contexts by situation, found and made, that are kept with a run.

Checkpoints and models are compared on the same contexts. A bank also keeps what a model did there.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch

from ad.errors import ConfigError, CorruptError
from ad.interpret.analysis import Subject
from ad.interpret.contexts import Contexts, padded
from ad.interpret.hooks import Write, hooked
from ad.interpret.labeled import UNREADABLE
from ad.interpret.situations import in_situation, made_contexts, situation_names
from ad.models.sequence_model import SequenceModel
from ad.rollout.tasks import sampling_temperature
from ad.runtime.files import atomic_write

FOUND, MADE = "found", "made"  # sources of contexts
SAVED = BY_HAND, EDITED = "by hand", "edited"  # those that a person saves in the app
UNNAMED = "unnamed"  # a situation that no predicate names
BANK = "situations.npz"  # in the folder of a run's analyses
NOT_ASKED = "none"
MOST = 64  # decisions by source, situation and asked return
WINDOW = "window."  # before the names of a window's fields in the file


@dataclass(frozen=True)
class Kept:
    """Contexts of a situation that a bank keeps, with one decision in each of B windows.

    source: FOUND, MADE, or one of SAVED; EDITED contexts need not be of the world.
    probability: float64 [B, A], of each action by the model of the bank.
    """

    source: str
    situation: str
    contexts: Contexts
    probability: np.ndarray

    def rows(self, asked: float | str) -> np.ndarray:
        """Return which contexts ask for the return `asked`, bool [B], all for NOT_ASKED."""
        if self.contexts.asked is None:
            return np.full(len(self.contexts), asked == NOT_ASKED)
        return self.contexts.asked == asked


@dataclass(frozen=True)
class Bank:
    """Contexts by situation, and what the model called `name` did in them."""

    name: str
    kept: list[Kept]

    @property
    def asked(self) -> list[float | str]:
        """The asked returns in order, or NOT_ASKED alone."""
        asked = [kept.contexts.asked for kept in self.kept if kept.contexts.asked is not None]
        return np.unique(np.concatenate(asked)).tolist() if asked else [NOT_ASKED]

    @classmethod
    def of_subject(cls, subject: Subject) -> "Bank":
        """Return a bank of all situations: at most MOST decisions of each asked return and source.

        They are found in the subject's contexts, spread over them, and made. Situations that do not
        occur are left out.
        """
        world, contexts, kept = subject.run.world, subject.contexts, []
        asked = None if contexts.asked is None else np.unique(contexts.asked)
        for name in situation_names(world):
            mask, own = in_situation(world, contexts, name) & contexts.decided, {}
            if mask.any():
                own[FOUND] = spread(contexts, mask, MOST)
            with suppress(ConfigError):
                own[MADE] = made_contexts(subject, name, asked, MOST)
            kept += [Kept(source, name, c, probabilities(subject, c)) for source, c in own.items()]
        return cls(subject.run.config.name, kept)

    def save(self, path: Path, model: SequenceModel) -> None:
        """Write the bank, which `model` reads, as one npz file: the same bank, the same bytes."""
        arrays, texts = {}, []
        for number, kept in enumerate(self.kept):
            labels = {entry.name: getattr(kept.contexts, entry.name) for entry in fields(Contexts)}
            window = {WINDOW + n: v.cpu().numpy() for n, v in labels.pop("window").items()}
            own = {n: value for n, value in labels.items() if isinstance(value, np.ndarray)}
            plain = {n: value for n, value in labels.items() if n not in own}
            own |= {"probability": kept.probability, **window}
            arrays |= {f"{number}.{name}": value for name, value in own.items()}
            texts.append([kept.source, kept.situation, plain])
        about = json.dumps({"name": self.name, "model": _reads(model), "kept": texts})
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, about=np.array(about), **arrays)

    @classmethod
    def load(cls, path: Path, model: SequenceModel) -> "Bank":
        """Return the bank at `path`, whose windows `model` reads.

        Raises ConfigError if there is none, or if it is for models that read other windows, and
        CorruptError if the file is damaged.
        """
        try:
            with np.load(path) as file:
                about, kept = json.loads(str(file["about"])), []
                for number, (source, situation, plain) in enumerate(about["kept"]):
                    own = _group(file, f"{number}.")
                    window = {n: torch.from_numpy(v) for n, v in _group(own, WINDOW).items()}
                    labels: dict = {n: v for n, v in own.items() if not n.startswith(WINDOW)}
                    probability = labels.pop("probability")
                    contexts = Contexts(window=window, **labels, **plain)
                    kept.append(Kept(source, situation, contexts, probability))
            bank, reads = cls(about["name"], kept), about["model"]
        except FileNotFoundError:
            raise ConfigError(f"there is no bank of situations {path}") from None
        except UNREADABLE as error:
            raise CorruptError(f"{path} is damaged: delete it, and analyze again") from error
        if reads != _reads(model):
            raise ConfigError(f"{path} is for other observations, actions, inputs or episodes")
        return bank


def spread(contexts: Contexts, mask: np.ndarray, most: int) -> Contexts:
    """Return contexts with one decision each of `mask`, bool [B, T + 1], `most` by asked return."""
    rows, entries = np.nonzero(mask)
    asked = np.zeros(len(contexts)) if contexts.asked is None else contexts.asked
    chosen = []
    for value in np.unique(asked):
        own = np.flatnonzero(asked[rows] == value)
        chosen.append(own[np.linspace(0, len(own) - 1, min(len(own), most)).astype(int)])
    chosen = np.concatenate(chosen)
    one = np.arange(mask.shape[1]) == entries[chosen, None]
    return replace(contexts.select(rows[chosen]), decided=one)


def save_situation(subject: Subject, contexts: Contexts, source: str) -> list[str]:
    """Add a decision, the only one of `contexts`, to the bank of the subject's run.

    It is kept as of `source`, one of SAVED, in each situation that it is in, whose names are
    returned. Raises the errors of `Bank.load` for a bank that is there; it is then left as it is.
    """
    path, world = subject.run.folder / "inspect" / BANK, subject.run.world
    bank = Bank(subject.run.config.name, [])
    bank = Bank.load(path, subject.model) if path.exists() else bank
    kept = {(one.source, one.situation): one for one in bank.kept}
    decided = contexts.decided
    names = [n for n in situation_names(world) if in_situation(world, contexts, n)[decided].any()]
    for name in (names := names or [UNNAMED]):
        before = kept.get((source, name))
        own = _joined([before.contexts, contexts] if before else [contexts])
        kept[source, name] = Kept(source, name, own, probabilities(subject, own))
    replace(bank, kept=list(kept.values())).save(path, subject.model)
    return names


def _joined(parts: list[Contexts]) -> Contexts:
    """Return the windows of contexts, each a group; shorter ones are padded at their end."""
    first, length = parts[0], 1 + max(part.length for part in parts)
    padding = {"episode": -1, "decided": False, "cell": 0}
    labels = {
        name: np.concatenate([padded(getattr(part, name), length, value) for part in parts])
        for name, value in padding.items()
    }
    labels["task"] = np.concatenate([part.task for part in parts])
    if first.asked is not None:
        labels["asked"] = np.concatenate([part.asked for part in parts])
    window = {
        name: torch.cat(
            [torch.from_numpy(padded(part.window[name].cpu().numpy(), length, 0)) for part in parts]
        )
        for name in first.window
    }
    count = sum(len(part.task) for part in parts)
    group = {"group": np.arange(count), "groups": [str(n) for n in range(count)]}
    return replace(first, window=window, **labels, **group, unit="context")


def probabilities(
    subject: Subject, contexts: Contexts, write: Mapping[str, Write] | None = None
) -> np.ndarray:
    """Return the probability with which each action is sampled, float64 [B, A].

    They are those of the only decision of each context, by the evaluation's temperature. `write`
    are hooks of `ad.interpret.hooks.hooked`.
    """
    with torch.inference_mode(), hooked(subject.model, write=write):
        logits = subject.model(contexts.window)
    decided = torch.from_numpy(contexts.decided[:, 1:]).to(logits.device)
    scaled = logits[decided].double() / sampling_temperature(subject.run.config.evaluation)
    return scaled.softmax(-1).cpu().numpy()


def _reads(model: SequenceModel) -> dict:
    """Return what the windows of `model` hold, as values of JSON."""
    spec = model.spec
    parts = {name: f"{part} {part.shape}" for name, part in spec.observation.items()}
    sizes = {"actions": spec.num_actions, "episode_length": spec.episode_length}
    return {"parts": parts, **sizes, "inputs": list(model.tokenizer.inputs)}


def _group(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Return the arrays whose names begin with `prefix`, without it."""
    return {n.removeprefix(prefix): arrays[n] for n in arrays if n.startswith(prefix)}
