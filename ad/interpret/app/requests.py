"""The requests of a page: checked here, and answered with plain types.

A bad request raises ConfigError with one sentence.
"""

import math
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ad.errors import ConfigError
from ad.interpret.analysis import Choice, Subject, refuse_change
from ad.interpret.app.session import UNTIL, Entry, Session
from ad.interpret.app.view import run_view, scan_view, session_view
from ad.interpret.edits import THINGS, parse_observation
from ad.methods import build_method, train_steps
from ad.models.sequence_model import SequenceModel
from ad.runtime.run import Run
from ad.training import checkpoints
from envs.tasks import SPLITS

Body = Mapping[str, object]  # of a request, from JSON

MOST_SESSIONS = 16  # kept at a time: the sessions that were used last
MOST_SUBJECTS = 4  # checkpoints in memory
MOST_STEPS = 40  # of the model for one request
MOST_SEED = 2**31
MOST_ENTRIES = 20_000  # of a link
MOST_SIDE = 99  # the highest coordinate of a cell
NUM_RETURNS = 21  # of a scan
ENTRIES = {  # what an entry does, beside an action: the names of its values
    "ask": ("value",),
    "put": ("thing", "x", "y", "view"),
    "ablate": ("components", "kind"),
    "mark": ("name",),
    "steer": ("point", "coefficient"),
    "time": ("time",),
    "change": ("index", "action", "reward", "observation", "next_observation"),
    "remove": ("index",),
    "forget": ("episode",),
    "restore": (),
}


class App:
    """The sessions of all pages, by token.

    It computes with one thread, unless `threads` is set: a decision is too small for more, and
    threads that wait for each other are slow on a busy machine. `model` is a released one, in place
    of the checkpoints of `run`. Raises ConfigError for a world that cannot be stepped, and the
    errors of `Subject.load`. A model that carries a state is refused.
    """

    def __init__(self, run: Run, model: SequenceModel | None = None):
        if not run.world.can_be_stepped:
            raise ConfigError("the world of recorded histories cannot be stepped, nor played")
        refuse_change(run)  # of a released model, too
        self.run = Run(replace(run.config, threads=run.config.threads or 1))
        self.released = model
        self.sessions: OrderedDict[str, Session] = OrderedDict()
        self.subjects: OrderedDict[int | None, Subject] = OrderedDict()
        self.routes = {"start": self.start, "do": self.do, "undo": self.undo, "look": self.look}
        self.routes |= {"model": self.model, "scan": self.scan, "rollout": self.rollout}
        self.routes |= {"unfold": self.unfold, "save": self.save}
        if self.load(None).model.carries:
            raise ConfigError(
                "the app looks at windows, and a model that was trained with training.segments "
                "above 1 decides by a state of what came before them"
            )

    def answer(self, route: str, body: Body) -> dict:
        """Return the answer to a request. Raises ConfigError for one that cannot be answered."""
        if route == "run":
            return run_view(self.run, self.steps)
        if route not in self.routes:
            raise ConfigError(f"there is nothing at /{route}")
        return self.routes[route](body)

    @property
    def steps(self) -> list[int]:
        """The train steps of the models that the page offers, the last one first."""
        if self.released:
            return [train_steps(self.run.config)]
        return checkpoints.steps(self.run.folder / "checkpoints")[::-1]

    def load(self, step: int | None) -> Subject:
        """Return the model of the checkpoint of train step `step`, None for the last one."""
        if self.released and step not in (None, *self.steps):
            raise ConfigError(f"there is no train step {step}: the model is a released one")
        if step not in self.subjects:
            choice, method = Choice(step=step), build_method(self.run.config.method)
            self.subjects[step] = (
                Subject(self.run, method, self.released, choice)
                if self.released
                else Subject.load(self.run, choice)
            )
            while len(self.subjects) > MOST_SUBJECTS:
                self.subjects.popitem(last=False)
        self.subjects.move_to_end(step)
        return self.subjects[step]

    def start(self, body: Body) -> dict:
        """Begin a session: {checkpoint, split, task, seed, entries}; the answer has its token.

        The `entries` of a link are applied one after the other.
        """
        split = body.get("split", "held_out")
        if split not in SPLITS:
            raise ConfigError(f"split must be {' or '.join(SPLITS)}")
        tasks: np.ndarray = getattr(self.run.split, f"{split}_tasks")
        task = tasks[_whole(body, "task", len(tasks) - 1)]
        seed = _whole(body, "seed", MOST_SEED)
        checkpoint, entries = body.get("checkpoint"), body.get("entries", [])
        if checkpoint is not None and type(checkpoint) is not int:
            raise ConfigError("checkpoint must be the train step of one, or null for the last")
        if not isinstance(entries, list) or len(entries) > MOST_ENTRIES:
            raise ConfigError(f"entries must be a list of at most {MOST_ENTRIES}")
        session = Session(self.load(checkpoint), task, seed)
        for number, entry in enumerate(entries):
            try:
                session.apply(checked(session, entry))
            except ConfigError as error:
                raise ConfigError(f"the link is stale: entry {number}: {error}") from error
        token = secrets.token_urlsafe(16)
        self.sessions[token] = session
        while len(self.sessions) > MOST_SESSIONS:
            self.sessions.popitem(last=False)[1].env.close()
        return {"token": token} | self._view(session, body)

    def do(self, body: Body) -> dict:
        """Add an entry to the list: {token, entry}. One that cannot be applied changes nothing."""
        session = self._session(body)
        entry = checked(session, body.get("entry"))
        try:
            session.apply(entry)
        except Exception:  # whatever failed, nothing of the entry stays
            self._replay(body, session.entries)
            raise
        return self._view(session, body)

    def undo(self, body: Body) -> dict:
        """Take the last entry back: {token}."""
        session = self._session(body)
        if not session.entries:
            raise ConfigError("there is nothing to undo")
        return self._view(self._replay(body, session.entries[:-1]), body)

    def model(self, body: Body) -> dict:
        """Let the model play: {token, until}; `done` says whether it reached that end."""
        session, until = self._session(body), body.get("until", "step")
        if not isinstance(until, str) or until not in UNTIL:
            raise ConfigError(f"until must be {', '.join(UNTIL[:-1])} or {UNTIL[-1]}")
        done = session.play(until, MOST_STEPS)
        return self._view(session, body) | {"done": done}

    def look(self, body: Body) -> dict:
        """Show the session along another direction: {token, direction}."""
        return self._view(self._session(body), body)

    def scan(self, body: Body) -> dict:
        """Return what changes with the asked return: {token, low, high}."""
        session, low, high = self._session(body), _number(body, "low"), _number(body, "high")
        if low >= high:
            raise ConfigError("the scan must begin below its end")
        return scan_view(session, np.linspace(low, high, NUM_RETURNS).tolist())

    def unfold(self, body: Body) -> dict:
        """Return the arrays of a section of the page: {token, part}."""
        from ad.interpret.app.parts import PARTS, part_view

        session, part = self._session(body), body.get("part")
        if not isinstance(part, str) or part not in PARTS:
            raise ConfigError(f"part must be one of {', '.join(PARTS)}")
        return {"arrays": part_view(session, part)}

    def save(self, body: Body) -> dict:
        """Keep the present decision in the bank of the run: {token}."""
        from ad.interpret.analyses.bank import BY_HAND, EDITED, save_situation

        session = self._session(body)
        if self.released:
            raise ConfigError("a released model has no run, in which situations are kept")
        is_edited = session.edited is not None or session.shift
        contexts, source = session.contexts(), EDITED if is_edited else BY_HAND
        return {"situations": save_situation(session.subject, contexts, source)}

    def rollout(self, body: Body) -> dict:
        """Play one of several rollouts from here: {token, number}, intact and changed."""
        session, number = self._session(body), _whole(body, "number", MOST_SEED)
        kinds = {"changed": True, "intact": False} if session.is_changed else {"intact": False}
        return {name: session.rollout(number, changed) for name, changed in kinds.items()}

    def _view(self, session: Session, body: Body) -> dict:
        if "direction" in body:
            name = str(body["direction"] or "")
            _ = session.chosen(direction=name).output_direction
            session.direction = name
        return session_view(session)

    def _replay(self, body: Body, entries: list[Entry]) -> Session:
        """Replace the session by one with these entries."""
        old = self._session(body)
        old.env.close()
        session = Session(old.subject, old.task, old.seed, entries)
        session.direction = old.direction
        self.sessions[str(body["token"])] = session
        return session

    def _session(self, body: Body) -> Session:
        token = body.get("token")
        if not isinstance(token, str) or token not in self.sessions:
            raise ConfigError("the session is not there any more: start again")
        self.sessions.move_to_end(token)
        return self.sessions[token]


def checked(session: Session, entry: object) -> Entry:
    """Return an entry whose values have the right types. Raises ConfigError for another one."""
    if type(entry) is int:
        return entry
    kinds = f"an entry is the number of an action, or does {', '.join(ENTRIES)}"
    if not isinstance(entry, dict):
        raise ConfigError(kinds)
    kind = entry.get("do")
    if not isinstance(kind, str) or kind not in ENTRIES:
        raise ConfigError(kinds)
    if unknown := entry.keys() - {"do", *ENTRIES[kind]}:
        raise ConfigError(f"an entry that does {kind} has no {unknown.pop()}")
    spec, history = session.model.spec, session.history
    whole = {
        "index": len(history) - 1,
        "episode": int(history.episode[-1]),
        "action": spec.num_actions - 1,
        "x": MOST_SIDE,
        "y": MOST_SIDE,
    }
    choices = {
        "thing": (*session.env.world.things, *THINGS),
        "kind": ("zero", "mean"),
        "name": ("A", "B"),
        "view": (False, True),
    }
    optional = {"change": ENTRIES["change"][1:], "ablate": ("kind",), "put": ("view",)}
    if kind == "change" and len(entry) < 3:
        raise ConfigError("a change needs an action, a reward or an observation")
    for name in ENTRIES[kind]:
        if name not in entry and name in optional.get(kind, ()):
            continue
        value = entry.get(name)
        if name in whole:
            _whole(entry, name, whole[name])
        elif name in ("value", "reward", "coefficient"):
            _number(entry, name)
        elif name in choices and not (isinstance(value, str | bool) and value in choices[name]):
            raise ConfigError(f"{name} must be one of {', '.join(map(str, choices[name]))}")
        elif name == "components" and not (
            isinstance(value, list) and all(isinstance(one, str) for one in value)
        ):
            raise ConfigError("components must be a list of names, e.g. 0.1 or mlp 0")
        elif name == "point" and not isinstance(value, str):
            raise ConfigError("point must be the name of a point")
        elif name == "time" and value is not None:
            _whole(entry, name, spec.episode_length - 1)
        elif name.endswith("observation"):
            parse_observation(value, spec.observation)
    return entry


def _whole(body: Body, name: str, most: int) -> int:
    value = body.get(name, 0 if name in ("task", "seed") else None)
    if type(value) is not int or not 0 <= value <= most:
        none = most < 0
        raise ConfigError(
            f"there is no {name} yet" if none else f"{name} must be a whole number from 0 to {most}"
        )
    return value


def _number(body: Body, name: str) -> float:
    value = body.get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or abs(value) > 1e6 or not math.isfinite(value):
        raise ConfigError(f"{name} must be a number of at most a million")
    return float(value)
