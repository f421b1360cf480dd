"""Circuits of heads: where the state makes them look, and what they then write for a direction.

QK is the score of the token of a state attending to a key, OV what a head writes for what it
attends to (Elhage et al. 2021). Both act on the embeddings directly; in later layers that leaves
out what earlier ones wrote. The score of a return-to-go is linear in the features of the state, and
its key in the asked return, so that a weight may change its sign with the asked return. The score
of a state attending to itself is not linear: there one cell of given views is replaced by another
thing, and the scores and the attention of the whole model are compared.

A singular vector of a circuit tells together what a head reads and what it writes, or which queries
look for which keys. A layer normalization is folded into the weights after it, and linearized at
its mean scale, except where cells are replaced.
"""

import math
import operator
from collections.abc import Iterable
from functools import reduce

import numpy as np
import torch
from torch import nn

from ad.data.spec import field_name
from ad.interpret.analyses import linear
from ad.interpret.analysis import Analysis, Subject, texts
from ad.interpret.contexts import RETURN_TO_GO, Contexts
from ad.interpret.hooks import hooked
from ad.interpret.labeled import LabeledArray, Results
from ad.interpret.relations import decision_tokens
from ad.models.sequence_model import SequenceModel
from ad.reporting.page import Table
from envs.minigrid.encoding import cells_in

NUM_SINGULAR = 4  # singular vectors of a circuit
NUM_VIEWS = 24  # in which cells are replaced
MEASURES = ["return-to-go", "state", "return-to-go - state", "attention to the return-to-go"]
QK, OV = "score of the state attending", "what attending to it writes for a direction"


class Circuits(Analysis):
    """QK and OV of each head by cell, object and asked return, and their singular vectors."""

    def run(self, subject):
        """Return scores, what heads write, singular vectors, and the neurons that read them."""
        model, sample, results = subject.model, linear.spread(subject.contexts), {}
        directions, note = linear.directions_of(subject), linear.linear_note(model)
        head, direction = {"head": subject.heads}, {"direction": list(directions)}
        asked = subject.asked if "inputs" in model.tokenizer.entries(1) else []

        def add(name: str, values: torch.Tensor, axes: dict, about: str) -> None:
            results[name] = linear.labeled(values, {**head, **axes}, f"{about}{note}")

        with torch.no_grad():
            scales, terms = linear.mean_scales(model, sample), term_vectors(model, sample)
            read = linear.readout(model, directions, scales)
            qk, ov = linear.affine_circuits(model, scales)
            vectors, writes = torch.stack(list(terms.values())), (ov @ read.T).mT  # [H, N, C + 1]
            add("ov_terms", writes @ vectors.T, {**direction, "term": [*terms]}, OV)
            axes = {"query term": [*terms], "key term": [*terms]}
            add("qk_terms", vectors @ qk @ vectors.T, axes, QK)
            maps = {"ov_state": (writes, direction, OV)}
            if asked:
                key = returns_to_go(terms, asked)  # [R, C + 1]
                maps["qk_return"] = (qk @ key.T).mT, {"asked return": asked}, f"{QK} to the return"
                add("ov_return", writes @ key.T, {**direction, "asked return": asked}, OV)
            number = {"number": list(range(1, NUM_SINGULAR + 1))}
            reads, written = zip(*(singular_vectors(w, read[-1]) for w in (qk, ov)), strict=True)
            about = "product of a singular vector, as a query (QK) or as what is read (OV)"
            circuit = {"circuit": ["QK", "OV"], **number}
            maps["singular_reads"] = torch.stack(reads, 1), circuit, about
            about_keys = "product of a term with the keys that a singular vector of QK looks for"
            add("singular_keys", written[0] @ vectors.T, {**number, "term": [*terms]}, about_keys)
            add("singular_writes", written[1] @ read.T, {**number, **direction}, OV)
            outputs = {f"singular {n + 1}": written[1][:, n] for n in range(NUM_SINGULAR)}
            outputs |= {name: vector @ ov for name, vector in terms.items()}
            for part, features in linear.features_of(model).items():
                suffix = f"-{part}" if part else ""
                axes = {"channel": features.channels, "cell": features.cells}
                for name, (matrix, own, about) in maps.items():
                    values = torch.einsum("kpc,h...c->h...kp", features.vectors, matrix[..., :-1])
                    add(f"{name}{suffix}", values, {**own, **axes}, f"{about}, by channel and cell")
                things = linear.things_in(sample, part, model)
                front = linear.front_cell(subject, part)
                if things and front:
                    vectors = linear.thing_vectors(features, things.values())
                    vectors = vectors[:, features.cells.index(front)]  # [things, C]
                    outputs |= {
                        f"{n} in front": v @ ov[:, :-1]
                        for n, v in zip(things, vectors, strict=True)
                    }
                    axes = {**direction, "thing": [*things]}
                    add(f"ov_in_front{suffix}", writes[..., :-1] @ vectors.T, axes, OV)
            results |= _neurons(model, outputs, head, scales)
        for part in model.tokenizer.parts if asked else ():
            results |= _replaced(subject, sample, part, asked)
        return results

    def table(self, results):
        """Return the attention and the OV of each head by what is in front, and OV of terms."""
        written, attention = results["ov_terms"], results.get("in_front")
        directions = linear.shown_directions(written)
        asked = attention.axes["asked return"] if attention else []
        rows = []

        def add(head: str, label: str, array: LabeledArray, looks: Iterable[float], **at) -> None:
            writes = [float(array.at(head=head, direction=name, **at)) for name in directions]
            rows.append([head, label, *texts(looks, ".2f"), *texts(writes, "+.3f")])

        fronts = {name: array for name, array in results.items() if name.startswith("ov_in_front")}
        features = {name: array for name, array in results.items() if name.startswith("ov_state")}
        unknown = [np.nan] * len(asked)
        for head in written.axes["head"]:
            for array in fronts.values():
                for thing in array.axes["thing"]:
                    here = {"head": head, "measure": MEASURES[-1], "thing": thing}
                    looks = attention.at(**here) if attention else unknown
                    add(head, f"{thing} in front", array, looks, thing=thing)
            for array in () if fronts else features.values():
                for feature in linear.strongest(array, head=head, direction=directions[-1]):
                    label = "{channel} at {cell}".format(**feature)
                    add(head, label, array, unknown, **feature)
            for term in written.axes["term"]:
                add(head, term, written, unknown, term=term)
            add(head, "singular vector 1", results["singular_writes"], unknown, number=1)
        looks = [f"attention to the return-to-go, {value:g} asked" for value in asked]
        return Table(["head", "read", *looks, *directions], rows, (1,))


def term_vectors(model: SequenceModel, sample: Contexts) -> dict[str, torch.Tensor]:
    """Return terms of tokens with a 1 appended only to the bias, [C + 1] by name.

    They are the return-to-go for 1 more and at 0, the mean time or position of the decisions, what
    linear encoders add to every state, and the biases of queries, keys and values.
    """
    found = {}
    for name, (slope, base) in linear.input_vectors(model).items():
        name = name.replace("_", "-")
        found |= {f"{name}, 1 more": slope, f"{name}, at 0": base}
    decided = torch.from_numpy(sample.decided[:, 1:])
    for name, values in model.tokenizer.terms(sample.window).items():
        if name in ("time", "position"):
            found[f"mean {name}"] = model.tokenizer.at_decisions(values).cpu()[decided].mean(0)
    biases = [getattr(encoder, "linear", None) for encoder in model.tokenizer.encoders]
    biases = [linear.bias for linear in biases if linear is not None]
    if biases:
        found["every state"] = torch.stack(biases).sum(0)
    found["bias"] = torch.zeros(model.transformer.width)
    return {name: nn.functional.pad(v, (0, 1), value=name == "bias") for name, v in found.items()}


def returns_to_go(terms: dict[str, torch.Tensor], asked: list[float]) -> torch.Tensor:
    """Return the tokens of asked returns at the mean time, with a 1 appended, [R, C + 1]."""
    own = {name for name in terms if name not in ("return-to-go, 1 more", "every state")}
    constant = torch.stack([terms[name] for name in own]).sum(0)
    return constant + torch.tensor(asked)[:, None] * terms["return-to-go, 1 more"]


def singular_vectors(
    circuits: torch.Tensor, sign_of: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first vectors that circuits read, and what they make of them.

    Both are [H, NUM_SINGULAR, C + 1], the second times the singular value, or without the 1 if the
    circuits write to the residual stream. Their sign is such that the second has a positive product
    with `sign_of` [C].
    """
    own = circuits[:, :-1, : sign_of.shape[0]]
    u, s, v = torch.linalg.svd(own, full_matrices=False)
    u, v = u.mT[:, :NUM_SINGULAR], (s[..., None] * v)[:, :NUM_SINGULAR]
    sign = torch.where(v @ sign_of < 0, -1.0, 1.0)[..., None]
    pad = circuits.shape[2] - v.shape[2]
    return nn.functional.pad(u * sign, (0, 1)), nn.functional.pad(v * sign, (0, pad))


def _neurons(model: SequenceModel, outputs: dict, head: dict, scales: dict) -> Results:
    """Return the cosines of what heads write with what the neurons of their layer read."""
    written = nn.functional.normalize(torch.stack(list(outputs.values()), 1), dim=-1)  # [H, W, C]
    cosines = []
    for layer, block in enumerate(model.transformer.in_turn):
        weight, _ = linear.folded(block.mlp.up, block.ln2, scales.get(f"blocks.{layer}.ln2", 1.0))
        own = written.unflatten(0, (-1, model.transformer.heads))[layer]
        cosines.append(own @ nn.functional.normalize(weight, dim=-1).T)
    axes = {**head, "written": list(outputs), "neuron": list(range(weight.shape[0]))}
    about = "cosine of what a head writes with what a neuron of its layer reads"
    return {"neuron_cosine": linear.labeled(torch.cat(cosines), axes, about)}


def _replaced(subject: Subject, sample: Contexts, part: str, asked: list[float]) -> Results:
    """Return scores and attention of the state's token, and their changes if a cell is replaced."""
    model, suffix = subject.model, f"-{part}" if part else ""
    if not (things := linear.things_in(sample, part, model)):
        return {}
    views = sample.spread(NUM_VIEWS)
    encoder = model.tokenizer.encoders[model.tokenizer.parts.index(part)]
    cells = linear.layout(model.spec.observation[part], encoder)[1]
    kinds = np.stack(list(things.values()))
    values = torch.stack(
        [
            reduce(
                operator.add,
                (replaced_scores(model, view, part, kinds, value) for view in views.batches(1)),
            )
            for value in asked
        ],
        1,
    )  # [H, R, M, 1 + things * cells]
    values = values / len(views)
    intact, changed = values[..., 0], values[..., 1:].unflatten(-1, (len(things), len(cells)))
    axes = {"head": subject.heads, "asked return": asked, "measure": MEASURES}
    about = "scores of the state's token attending, and attention: mean over views"
    added = {"thing": [*things], "cell": cells}
    about_change = f"{about}, change if a cell shows another thing"
    change = changed - intact[..., None, None]
    results = {
        f"scores{suffix}": linear.labeled(intact, axes, about),
        f"replaced{suffix}": linear.labeled(change, {**axes, **added}, about_change),
    }
    if front := linear.front_cell(subject, part):
        about, axes = f"{about}, with a thing in front of the agent", {**axes, "thing": [*things]}
        results[f"in_front{suffix}"] = linear.labeled(changed[..., cells.index(front)], axes, about)
    return results


def replaced_scores(
    model: SequenceModel, view: Contexts, part: str, things: np.ndarray, asked: float
) -> torch.Tensor:
    """Return MEASURES at the last decision of one window, [H, M, 1 + things * cells].

    The first is of the window as it is, with the return `asked` left at that decision; in each of
    the others one of `things`, uint8 [n, 3], is in one cell of the last observation.
    """
    entry, field = int(view.last[0]), field_name("observation", part)
    seen = view.window[field][0, entry]
    depth, cells = seen.shape[-1], math.prod(seen.shape[:-1])
    new = torch.from_numpy(cells_in(depth, things)).to(seen)
    place = torch.arange(len(things) * cells)
    pictures = seen.reshape(-1, depth).repeat(1 + len(place), 1, 1)
    pictures[1 + place, place % cells] = new[place // cells]
    window = {
        name: value.repeat(len(pictures), *[1] * (value.dim() - 1))
        for name, value in view.window.items()
    }
    window[field][:, entry] = pictures.unflatten(1, seen.shape[:-1])
    left = window[RETURN_TO_GO]
    window[RETURN_TO_GO] = left + (asked - left[0, entry]) * window["valid"]
    with torch.inference_mode(), hooked(model, ("*.hook_attn_scores", "*.hook_pattern")) as values:
        model(window)
    query = decision_tokens(model, view.length)[entry - 1]
    key = model.tokenizer.entries(view.length)["inputs"][0].tolist().index(entry)
    score, pattern = (
        torch.cat([value[:, :, query] for name, value in values.items() if name.endswith(kind)], 1)
        for kind in ("scores", "pattern")
    )  # [1 + things * cells, H, K]
    measures = score[..., key], score[..., query], score[..., key] - score[..., query]
    return torch.stack([*measures, pattern[..., key]], 2).permute(1, 2, 0)
