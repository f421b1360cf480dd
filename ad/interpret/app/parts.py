"""Folded sections of the page: what analyses of the library say of the present decision.

They are computed when a person unfolds them, by the functions that make the page of the analyses.
"""

import numpy as np
import torch

from ad.data.spec import field_name
from ad.interpret.app.session import Session
from ad.interpret.app.view import explained
from ad.interpret.contexts import RETURN_TO_GO
from ad.interpret.edits import best_two
from ad.interpret.labeled import LabeledArray, Results
from ad.models.encoders.linear import IndexLinear, OneHotLinear
from envs.minigrid.encoding import COLORS, OBJECTS, SIZES, STATES, encoded_cells, shows_cells

PARTS = ("cells", "heads", "gradients")
KINDS, WORDS = ("object", "color", "state"), (OBJECTS, COLORS, STATES)
CIRCUITS = ("qk_return", "ov_state", "in_front", "ov_in_front", "replaced", "ov_terms")


def part_view(session: Session, part: str) -> list[dict]:
    """Return the arrays of a section, one of PARTS, as plain types. Raises ConfigError."""
    from ad.interpret.analyses.circuits import Circuits
    from ad.interpret.analyses.weights import attributions
    from ad.interpret.page import array_data

    subject = decision_subject(session)
    with session.model_of():
        if part == "cells":
            found = by_cell(subject, session.shift)
        elif part == "heads":
            results = Circuits().run(subject)
            found = {f"{n} x view": a for n, a in times_view(subject, results).items()}
            kept = {n: a for n, a in results.items() if n.partition("-")[0] in CIRCUITS}
            found |= dict(
                sorted(kept.items(), key=lambda p: CIRCUITS.index(p[0].partition("-")[0]))
            )
        else:
            found = attributions(subject)
    return [array_data(name, array) for name, array in found.items()]


def decision_subject(session: Session):
    """Return the subject whose only context is the present decision, with its asked return."""
    mask = None if session.mask is None else session.mask[0]
    contexts, names = session.reader().contexts(), session.run.world.action_names
    pair = best_two(explained(session)["outputs"].values, mask)
    words = [names[n] if n < len(names) else str(n) for n in pair]
    left = contexts.window.get(RETURN_TO_GO)
    asked = () if left is None else (float(left[0, -1]),)
    found = session.chosen(direction=session.direction or " - ".join(words), asked=asked)
    found.__dict__["contexts"] = contexts
    return found


def by_cell(subject, shift: int = 0) -> Results:
    """Return weights x view, their sums, the weights, and the embeddings of time and return.

    `shift`, in env steps, is added to the time that the model reads.
    """
    from ad.interpret.analyses.linear import directions_of, mean_scales, readout
    from ad.interpret.analyses.weights import embedded

    model, contexts, results = subject.model, subject.contexts, embedded(subject)
    found, terms = {}, {}
    for array in times_view(subject, results).values():
        found["state x view"] = array
        terms |= dict(zip(KINDS, array.values[0].sum(1).tolist(), strict=True))
        read = readout(model, directions_of(subject), mean_scales(model, contexts))
        biases = [e.linear.bias for e in model.tokenizer.encoders if hasattr(e, "linear")]
        terms["every state"] = float(sum((read @ bias)[0] for bias in biases))
    if "time" in results:
        curve = results["time"].values[0]
        time = int(np.clip(contexts.time[0, -1] + shift, 0, len(curve) - 1))
        terms[f"time {time}"] = float(curve[time])
    if terms:
        about = "contribution of the decision's own token to the direction, by what it tells"
        found["sums"] = LabeledArray(np.array([*terms.values()]), {"term": [*terms]}, about)
    found |= by_word(subject, found)
    names = [n for n in results if n.partition("-")[0] in ("state", "time", "return_to_go")]
    return found | {name: results[name] for name in names}


def by_word(subject, found: Results) -> Results:
    """Return the sums of weight x view over the cells that show the same thing."""
    part = _picture(subject.model)
    if part is None or "state x view" not in found:
        return {}
    seen = subject.contexts.window[field_name("observation", part)][0, -1].cpu().numpy()
    numbers, values = encoded_cells(seen).reshape(-1, len(KINDS)), found["state x view"].values[0]
    sums = {
        f"{kind} {words[n]}": float(values[k][numbers[:, k] == n].sum())
        for k, (kind, words) in enumerate(zip(KINDS, WORDS, strict=True))
        for n in np.unique(numbers[:, k])
    }
    about = "sums of state x view over the cells that show the same object, color or state"
    return {"sums by word": LabeledArray(np.array([*sums.values()]), {"word": [*sums]}, about)}


def times_view(subject, results: Results) -> Results:
    """Return arrays by channel and cell times what is observed, by object, color and state."""
    part = _picture(subject.model)
    if part is None:
        return {}
    model, suffix = subject.model, f"-{part}" if part else ""
    encoder, inputs = model.tokenizer.encoders[model.tokenizer.parts.index(part)], []
    seen = subject.contexts.window[field_name("observation", part)][0, -1]
    keep = encoder.linear.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with keep, torch.no_grad():
        encoder(seen[None])
    found, cells = {}, seen.shape[:-1].numel()
    read = inputs[0].reshape(cells, -1).T.double().cpu().numpy()  # [channels, cells]
    starts = np.cumsum((0, *SIZES[:-1])) if len(read) > len(KINDS) else np.arange(len(KINDS))
    for name in ("state", "qk_return", "ov_state"):
        if array := results.get(name + suffix):
            values = np.add.reduceat(array.values * read, starts, axis=-2)
            about = f"{array.about}; times what is observed"
            found[name + suffix] = LabeledArray(
                values, {**array.axes, "channel": list(KINDS)}, about
            )
    return found


def _picture(model) -> str | None:
    """Return the part of the observation whose cells a linear encoder reads, None without one."""
    parts = zip(model.tokenizer.parts, model.tokenizer.encoders, strict=True)
    return next(
        (
            name
            for name, encoder in parts
            if isinstance(encoder, OneHotLinear | IndexLinear)
            and shows_cells(model.spec.observation[name])
        ),
        None,
    )
