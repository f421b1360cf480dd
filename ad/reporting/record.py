"""Record videos of a run: the learning of source agents, and the frozen model on held-out tasks.

A video shows three episodes side by side with their numbers and returns. The world draws them, from
the recorded fields of their transitions. An environment of Gymnasium plays those of an evaluation
again, from their seed, so that there are no videos of its source agents. Reads the histories and
`trajectories.npz`, writes `videos/<run>/source_<task>.mp4` and `videos/<run>/held_out_<task>.mp4`.
Files that already show the same frames are kept; other videos in the folder are removed.
"""

import os
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ad.data.episodes import episodes
from ad.data.histories import HistoryStore
from ad.data.spec import field_name
from ad.data.store import load_history
from ad.errors import ConfigError, CorruptError
from ad.evaluation.summary import read_summary
from ad.methods import build_method
from ad.reporting import video
from ad.rollout.rollout import derive_seeds
from ad.rollout.tasks import env_seed
from ad.runtime.run import Run
from envs.minigrid.encoding import has_words, words_of
from envs.oracle import TaskOracle
from envs.spaces import observation_parts
from envs.tasks import task_name

MAX_WORKERS = 4  # videos made at once; each has its frames in memory up to three times
EARLY_DIVISOR = 10  # the second episode of a held-out video is number episodes // 10
FPS = 8  # frames per second
EDGE = 215  # gray of the line around an episode
PLACES = ("split", "task", "episode", "time")  # not fields of a transition


class ReplayError(ConfigError):
    """The episodes of an evaluation cannot be played again."""


@dataclass(frozen=True)
class EpisodeSequence:
    """Consecutive episodes on one task, int [D]: fields of transitions [T], episodes [E].

    start, stop, returns: of each episode the first transition, the one after its last, the return.
    """

    task: np.ndarray
    transitions: dict[str, np.ndarray]
    start: np.ndarray
    stop: np.ndarray
    returns: np.ndarray

    def frames(self, world: TaskOracle, chosen: Collection[int]) -> dict[int, np.ndarray]:
        """Return the frames of the `chosen` episodes by their numbers, uint8 [steps + 1, H, W, 3].

        A world that does not draw transitions plays the episodes of an evaluation again. Raises
        ReplayError if they become others.
        """
        episodes = [slice(*ends) for ends in zip(self.start, self.stop, strict=True)]
        if draws_transitions(world):
            fields = {
                e: {name: values[episodes[e]] for name, values in self.transitions.items()}
                for e in chosen
            }
            drawn = {e: world.frames(self.task, own) for e, own in fields.items()}
            return {e: frames for e, frames in drawn.items() if frames is not None}
        actions = [self.transitions["action"][steps] for steps in episodes]
        played = list(zip(actions, self.returns.tolist(), strict=True))
        (seed,), _ = derive_seeds([env_seed(0, self.task)])  # of the first evaluation seed
        try:
            return world.replay(self.task, seed, played, chosen)
        except ValueError as error:
            raise ReplayError(f"episodes cannot be played again: {error}") from error


def record(run: Run, fresh: bool = False) -> tuple[int, int] | None:
    """Record the videos that are missing or out of date; returns (number written, total number).

    With `fresh`, records all. Returns None, and records nothing, if the world cannot draw its
    episodes. Raises ConfigError if the run is not evaluated with its present settings, CorruptError
    if a file is damaged, MachineError if ffmpeg is missing or fails.
    """
    settings = run.config.record
    if not can_draw(run):
        return None
    if settings.held_out_videos:
        read_summary(run)  # raises an error unless the trajectories are those of the settings
    total = min(settings.held_out_videos, len(run.split.held_out_tasks))
    if draws_transitions(run.world):
        total += len(run.history_tasks) * settings.source_videos
    threads, written = run.config.threads or os.cpu_count() or 1, {}
    with (
        tqdm(total=total, desc="record", unit=" videos", disable=None) as bar,
        ThreadPoolExecutor(min(threads, MAX_WORKERS)) as pool,
    ):
        try:
            drawn = _montages(run)
            futures = {path: pool.submit(_write, path, frames, fresh) for path, frames in drawn}
            for path, future in futures.items():
                written[path] = future.result()
                bar.update()
        finally:  # after an error or a signal, wait only for videos that are being written
            pool.shutdown(cancel_futures=True)
    for path in set(run.videos.glob("*.mp4")) - set(written):
        path.unlink()
    return sum(written.values()), len(written)


def can_draw(run: Run) -> bool:
    """Return whether the world draws its episodes, or plays them again.

    Drawings are those of one task, so that there are none where tasks change.
    """
    is_still = not run.config.env.change
    return is_still and (draws_transitions(run.world) or run.world.can_render)


def draws_transitions(world: TaskOracle) -> bool:
    """Return whether the world draws an episode from its transitions."""
    return type(world).frames is not TaskOracle.frames


def rollout_episodes(path: Path, count: int) -> Iterator[EpisodeSequence]:
    """Yield the episodes of `count` held-out tasks, evenly spaced, from a `trajectories.npz`.

    Raises ConfigError if the file does not exist, CorruptError if it cannot be read.
    """
    fields = _load(path)
    rows = np.flatnonzero(fields["split"] == "held_out")
    for row in rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)]:
        episode = fields["episode"][row]
        played = episode >= 0
        _, start = np.unique(episode[played], return_index=True)
        stop = np.append(start[1:], played.sum())
        returns = np.add.reduceat(fields["reward"][row, played], start)
        names = [name for name in fields if name not in PLACES]
        transitions = {name: fields[name][row, played] for name in names}
        yield EpisodeSequence(fields["task"][row], transitions, start, stop, returns)


def history_episodes(task: np.ndarray, folder: Path) -> EpisodeSequence:
    """Load the episodes of the first actor of a history.

    Raises ConfigError if there is no whole episode.
    """
    arrays = {name: array[:1] for name, array in load_history(folder).arrays.items()}
    whole = episodes(arrays["terminated"] | arrays["truncated"], arrays["reward"])
    if len(whole.start) == 0:
        raise ConfigError(f"{folder} holds no whole episode to record: raise source.env_steps")
    transitions = {name: array[0] for name, array in arrays.items()}
    return EpisodeSequence(task, transitions, whole.start, whole.stop, whole.returns)


def episode_montage(
    world: TaskOracle, sequence: EpisodeSequence, chosen: set[int], title: str
) -> np.ndarray:
    """Draw the `chosen` episodes side by side, frames [T, H, W, 3]; the last frame lasts 1 s."""
    drawn = sequence.frames(world, chosen)
    panels = [_panel(world, sequence, e, drawn[e]) for e in sorted(chosen)]
    frames = video.add_caption(video.side_by_side(panels), title, size=19)
    frames = np.concatenate([frames, np.repeat(frames[-1:], FPS, axis=0)])
    return video.add_margin(frames)


def _write(path: Path, frames: Callable[[], np.ndarray], fresh: bool) -> bool:
    return video.write_video(path, frames(), FPS, fresh)


def _montages(run: Run) -> Iterator[tuple[Path, Callable[[], np.ndarray]]]:
    """Yield (path, function that draws the frames) of each video of `config.record`."""
    settings, world, noun = run.config.record, run.world, run.world.task_noun
    agent, how = "Frozen model", "one context, no training"
    if not build_method(run.config.method).has_model:
        agent, how = "Source", "one life of learning"
    if settings.held_out_videos:
        path = run.folder / "trajectories.npz"
        for sequence in rollout_episodes(path, settings.held_out_videos):
            last = len(sequence.start) - 1
            chosen = {0, max((last + 1) // EARLY_DIVISOR - 1, 0), last}
            name, (text,) = task_name(sequence.task), world.names([sequence.task])
            title = f"{agent} on held-out {noun} {text}: {how}"
            frames = partial(episode_montage, world, sequence, chosen, title)
            yield run.videos / f"held_out_{name}.mp4", frames
    if settings.source_videos and draws_transitions(world):
        histories = HistoryStore(run.config)
        for task in run.history_tasks:
            frames = partial(_source_montage, world, task, histories.folder(task))
            yield run.videos / f"source_{task_name(task)}.mp4", frames


def _source_montage(world: TaskOracle, task: np.ndarray, folder: Path) -> np.ndarray:
    sequence = history_episodes(task, folder)
    last, (name,) = len(sequence.start) - 1, world.names([task])
    title = f"Source agent on train {world.task_noun} {name}: one of its actors while it trains"
    return episode_montage(world, sequence, {0, last // 2, last}, title)


def _panel(
    world: TaskOracle, sequence: EpisodeSequence, episode: int, frames: np.ndarray
) -> np.ndarray:
    """Return the frames of an episode, [steps + 1, H, W, 3], with its number and return above.

    A mission stands between.
    """
    for name, part in observation_parts(world).items():
        if has_words(part):
            first = sequence.transitions[field_name("observation", name)][sequence.start[episode]]
            frames = video.add_caption(frames, words_of(first))
    text = f"episode {episode + 1} of {len(sequence.start)} · return {sequence.returns[episode]:g}"
    return video.add_caption(video.add_margin(frames, 1, EDGE), text)


def _load(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        raise ConfigError(f"{path} does not exist: run `ad evaluate` first")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in (*PLACES, "reward", *file.files)}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise CorruptError(f"{path} is not what evaluation writes: {error}") from error
