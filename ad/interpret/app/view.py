"""The view of a session on the page, as plain types: the world, the decision, the context."""

import base64
import hashlib
import io

import numpy as np
import torch
from PIL import Image

from ad.data.episodes import episodes
from ad.errors import ConfigError
from ad.interpret.analysis import check_model
from ad.interpret.app.session import Session
from ad.interpret.directions import direction_names
from ad.interpret.edits import THINGS, Observation, Reader, Transition, best_two, cells_of, explain
from ad.interpret.hooks import point_names
from ad.interpret.labeled import LabeledArray, Results
from ad.interpret.relations import relation_names
from ad.methods.action_values import ActionValueModel
from ad.models.positions import EnvTime
from ad.rollout.rollout import allowed_logits
from ad.rollout.tasks import sampling_temperature
from ad.runtime.run import Run
from envs.minigrid.encoding import COLORS, OBJECTS, STATES, has_words, words_of
from envs.spaces import Array, Discrete
from envs.tasks import SPLITS

DIGITS = 6  # after the point
MOST_NUMBERS = 4  # of an array that are shown
CHANNELS, WORDS = ("object", "color", "state"), (OBJECTS, COLORS, STATES)
COMPARED = ("outputs", "attention", "components")  # that are shown without the changes too
# Ends of the names of points that hold vectors of the residual stream.
STEERED = ("embed", "resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")


def run_view(run: Run, steps: list[int]) -> dict:
    """Return the choices of the page: the train `steps` of checkpoints, tasks by split."""
    world, split = run.world, run.split
    tasks = {name: world.names(getattr(split, f"{name}_tasks")) for name in SPLITS}
    return {
        "name": run.config.name,
        "checkpoints": steps,
        "tasks": tasks,
        "task_noun": world.task_noun,
    }


def session_view(session: Session) -> dict:
    """Return everything that the page shows of a session."""
    return {
        **_world(session),
        **_seen(session),
        **_decision(session),
        **_changes(session),
        **_inside(session),
        "context": _context(session),
        "entries": session.entries,
    }


def _world(session: Session) -> dict:
    """Return the picture, the time, and the episodes so far."""
    history, spec = session.played, session.model.spec
    world, frame = session.env.world, session.frame()
    ended = np.array([[step.ended for step in history.transitions]], bool)
    rewards = np.array([[step.reward for step in history.transitions]], np.float64)
    whole = episodes(ended, rewards)
    return {
        "image": None if frame is None else _png(frame),
        "grid": world.grid_shape() if world.things else None,
        "things": world.things,
        "observation": _text(history.observation, spec.observation),
        "episode": int(history.episode[-1]),
        "time": int(history.time[-1]),
        "episode_length": session.config.env.episode_length,
        "returns": _numbers(whole.returns),
        "lengths": (whole.stop - whole.start).tolist(),
        "last": [_outcome(step) for step in history.transitions[-1:]],
    }


def _outcome(step: Transition) -> dict:
    return {"action": step.action, "reward": round(step.reward, DIGITS), "ended": step.ended}


def _seen(session: Session) -> dict:
    """Return the cells that the model reads, by channel and row, and the words of their numbers."""
    cells = cells_of(session.history.observation, session.model.spec.observation)
    if cells is None:
        return {"seen": None}
    channels = zip(CHANNELS, cells.transpose(2, 1, 0).tolist(), WORDS, strict=True)
    seen = {name: {"numbers": numbers, "words": words} for name, numbers, words in channels}
    return {"seen": seen, "view_things": list(THINGS)}


def _decision(session: Session) -> dict:
    """Return the policy's probabilities at the present decision, and the asked return."""
    names, spec = session.run.world.action_names, session.model.spec
    numbers, (low, high) = range(spec.num_actions), spec.return_range
    mask = np.ones((1, len(numbers)), bool) if session.mask is None else session.mask
    return {
        "actions": [names[n] if n < len(names) else f"action {n}" for n in numbers],
        "allowed": mask[0].tolist(),
        "probabilities": _numbers(_probabilities(session, session.reader())),
        "probabilities_before": _numbers(_probabilities(session, session.reader(False))),
        "model_action": session.model_action(),
        "asked": None
        if session.asked is None
        else {"value": session.asked, "low": low, "high": high},
    }


def _changes(session: Session) -> dict:
    """Return what a person has changed, and what can be changed."""
    model, last = session.model, session.model.spec.episode_length - 1
    heads, time = session.subject.heads, int(session.history.time[-1])
    layers = range(len(model.transformer.blocks) if heads else 0)
    has_time = isinstance(model.tokenizer.position, EnvTime)
    present = session.played.observation
    return {
        "changed": session.is_changed,
        "edited": session.edited is not None,
        "unnatural": session.history.observation is not present,
        "removable": [*heads, *(f"mlp {layer}" for layer in layers)],
        "ablated": session.ablated,
        "steering": session.steering,
        "marks": sorted(session.marks),
        "points": [n for n in point_names(model.memory) if n.endswith(STEERED)],
        "read_time": min(max(time + session.shift, 0), last) if has_time else None,
        "last_time": last,
        "shift": session.shift,
        "directions": direction_names(session.run.world, model.spec.num_actions),
        "direction_name": session.direction,
    }


def _inside(session: Session) -> dict:
    """Return what the model computes; `inside` is empty, or says why that cannot be shown."""
    model, mask = session.model, None if session.mask is None else session.mask[0]
    try:
        check_model(model)
    except ConfigError as error:
        return {"inside": f"The model's computation is not shown: {error}."}
    after = explained(session)
    before = after
    if session.is_changed:
        direction = torch.from_numpy(after["direction"].values)
        before = explain(model, session.reader(False).contexts(), direction)
    is_value = isinstance(model, ActionValueModel) and model.q_head is None
    best, second = best_two(after["outputs"].values, mask)
    return {
        "inside": "",
        "output": "action value" if is_value else "logit",
        "best": best,
        "second": second,
        "heads": after["attention"].axes["head"],
        "relations": after["attention"].axes["relation"],
        "component_names": after["components"].axes["component"],
        "contributions": _numbers(_by_relation(session, after["relations"])),
        "direction": _numbers(after["direction"].values),
        **{name: _numbers(after[name].values) for name in COMPARED},
        **{f"{name}_before": _numbers(before[name].values) for name in COMPARED},
    }


def _by_relation(session: Session, array: LabeledArray) -> np.ndarray:
    """Return the contributions by head and relation, NaN for an ablated head: it reads no token."""
    is_ablated = np.isin(array.axes["head"], session.ablated.get("components", []))
    return np.where(is_ablated[:, None], np.nan, array.values)


def explained(session: Session) -> Results:
    """Return what the model computes at the present decision, along the session's direction."""
    mask = None if session.mask is None else session.mask[0]
    with session.model_of():
        direction = session.chosen(direction=session.direction).output_direction
        return explain(session.model, session.reader().contexts(), direction, mask)


def scan_view(session: Session, asked: list[float]) -> dict:
    """Return the curves over the asked returns. Raises ConfigError for a model without them."""
    from ad.interpret.analyses.attribution import component_names
    from ad.interpret.analyses.return_scan import correlations, scan

    if session.asked is None:
        raise ConfigError("the model is not asked for a return, so there is nothing to scan")
    direction = torch.from_numpy(explained(session)["direction"].values)[None]
    with session.model_of():
        found = scan(session.model, session.reader().contexts(), np.array(asked), direction)
    found = {name: values[0, -1].cpu().double().numpy() for name, values in found.items()}
    occurs = found["present"] > 0
    names = [n for n, one in zip(relation_names(session.model), occurs, strict=True) if one]
    return {
        "asked": asked,
        "components": ["sum", *component_names(session.model)],
        "heads": session.subject.heads,
        "relations": names,
        "probability": _numbers(found["probability"]),
        "contribution": _numbers(
            np.concatenate([found["preference"], found["contribution"][:, 0]], 1)
        ),
        "attention": _numbers(found["attention"][..., occurs]),
        "correlation": _numbers(correlations(found)[0]),
    }


def _probabilities(session: Session, reader: Reader) -> np.ndarray:
    """Return the probabilities with which each action is sampled, [A]."""
    logits = allowed_logits(reader.logits, session.mask)[0]
    scaled = (logits - logits.max()) / sampling_temperature(session.config.evaluation)
    return np.exp(scaled) / np.exp(scaled).sum()


def _context(session: Session) -> list[dict]:
    """Return the transitions of the model's context in order."""
    reader = session.reader()
    entries, history = reader.entries(), reader.history
    played = set(map(id, session.played.transitions))
    parts, episode, time = reader.spec.observation, history.episode, history.time
    told = {
        entry
        for role, values in session.model.tokenizer.entries(len(entries) - 1).items()
        for entry in values.flatten().tolist()
        if role != "decision"
    }  # a token that tells of no earlier entry shows none of the past
    rows = []
    for index in [entries[n] for n in range(len(entries) - 1) if entries[n] >= 0 and n in told]:
        index = int(index)
        step = history.transitions[index]
        rows.append(
            {
                "index": index,
                "episode": int(episode[index]),
                "time": int(time[index]),
                "observation": _text(step.observation, parts),
                "next_observation": _text(step.next_observation, parts),
                **_outcome(step),
                "edited": id(step) not in played,
            }
        )
    return rows


def _text(observation: Observation, parts: dict[str, Discrete | Array]) -> str:
    """Return an observation as text: a cell as its row and column, a large array as its hash.

    A mission is its words.
    """
    texts = []
    for name, part in parts.items():
        value = observation[name]
        if isinstance(part, Discrete) and len(part.factors) > 1:
            numbers = np.unravel_index(int(value), part.factors)
            text = f"({', '.join(str(int(number)) for number in numbers)})"
        elif has_words(part):
            text = words_of(value)
        elif np.size(value) <= MOST_NUMBERS:
            text = ", ".join(f"{number:g}" for number in np.ravel(value))
        else:
            # Four characters that differ for most different arrays.
            content = np.ascontiguousarray(value).tobytes()
            text = f"image {hashlib.sha256(content).hexdigest()[:4]}"
        texts.append(f"{name} {text}" if name else text)
    return "; ".join(texts)


def _numbers(values: np.ndarray) -> list:
    """Return numbers for JSON, which has no NaN and no infinity: null."""
    rounded = np.round(np.asarray(values, np.float64), DIGITS)
    return np.where(np.isfinite(rounded), rounded.astype(object), np.array(None)).tolist()


def _png(frame: np.ndarray) -> str:
    """Return a picture as a data URL."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "png", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
