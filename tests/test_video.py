"""Videos: a decoded file has the frames that were drawn, and a run shows the right episodes."""

import imageio_ffmpeg
import numpy as np
import pytest
from fields import FIELDS
from small_run import evaluated_run

from ad.data.histories import HistoryStore
from ad.errors import CorruptError, MachineError
from ad.reporting import video
from ad.reporting.record import FPS, history_episodes, record, rollout_episodes
from envs.tasks import task_name


def decoded(path) -> np.ndarray:
    """All frames of a video, uint8 [T, H, W, 3]."""
    reader = imageio_ffmpeg.read_frames(str(path))
    width, height = next(reader)["size"]
    return np.array([np.frombuffer(f, np.uint8).reshape(height, width, 3) for f in reader])


def gray_frames(count: int, height: int, width: int) -> np.ndarray:
    shades = np.linspace(0, 250, count).astype(np.uint8)[:, None, None, None]
    return np.broadcast_to(shades, (count, height, width, 3)).copy()


@pytest.mark.parametrize(("height", "width"), [(32, 48), (33, 47)])
def test_a_video_opened_again_has_its_frames_at_an_even_size(tmp_path, height, width):
    frames = gray_frames(7, height, width)
    video.write_video(tmp_path / "a.mp4", frames, fps=8)
    again = decoded(tmp_path / "a.mp4")
    assert again.shape == (7, height + height % 2, width + width % 2, 3)
    assert np.abs(again[:, :height, :width].astype(int) - frames).max() < 12


def test_a_video_that_shows_the_same_is_kept_and_another_one_replaced(tmp_path):
    path, frames = tmp_path / "a.mp4", gray_frames(3, 32, 32)
    assert video.write_video(path, frames, fps=8)
    assert not video.write_video(path, frames, fps=8)
    assert video.write_video(path, frames, fps=4)
    assert video.write_video(path, 255 - frames, fps=4)


def test_the_same_frames_make_the_same_file(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        video.write_video(tmp_path / name, gray_frames(5, 64, 64), fps=8)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.parametrize("output", ["Unknown encoder libx264", ""])
def test_an_ffmpeg_that_fails_is_an_error_and_leaves_no_file(tmp_path, monkeypatch, output):
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat > /dev/null\necho '{output}' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    with pytest.raises(MachineError, match=f"ffmpeg could not write .*{output}"):
        video.write_video(tmp_path / "out" / "a.mp4", gray_frames(3, 32, 32), fps=8)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_panel_that_ended_holds_its_last_frame():
    short, long = gray_frames(2, 8, 8), gray_frames(5, 8, 8)
    both = video.side_by_side([short, long], gap=4)
    assert both.shape == (5, 8, 20, 3)
    assert (both[1:, :, :8] == short[-1]).all() and (both[:, :, 12:] == long).all()


@pytest.mark.parametrize("width", [60, 400])
def test_a_caption_is_written_above_the_frames_and_fits(width):
    frames = gray_frames(2, 40, width)
    captioned = video.add_caption(frames, "episode 100")
    strip = captioned[:, :-40]
    assert (captioned[:, -40:] == frames).all() and (strip < 128).any()
    assert (strip[:, :, [0, -1]] == 255).all()


@pytest.fixture(scope="module")
def run(collected):
    run = evaluated_run(collected("videos"))
    record(run)
    return run


def test_a_held_out_video_lasts_as_long_as_the_longest_of_its_episodes(run):
    path = next(run.videos.glob("held_out_*.mp4"))
    episodes = next(rollout_episodes(run.folder / "trajectories.npz", 1))
    lengths = (episodes.stop - episodes.start)[
        [0, 0, -1]
    ]  # a tenth of the way through twelve: the first
    assert len(decoded(path)) == lengths.max() + 1 + FPS


def test_the_episodes_of_a_held_out_task_lie_end_to_end(run):
    results = (run.folder / "results.csv").read_text().splitlines()
    for episodes in rollout_episodes(run.folder / "trajectories.npz", 3):
        place = f"held_out,{task_name(episodes.task)},0,"
        rows = [row.split(",") for row in results if row.startswith(place)]
        assert episodes.returns.tolist() == [float(row[4]) for row in rows]
        assert (episodes.stop - episodes.start).tolist() == [int(row[5]) for row in rows]
        assert episodes.start[0] == 0 and (episodes.start[1:] == episodes.stop[:-1]).all()


def test_a_history_starts_each_episode_at_the_start(run):
    task = run.split.train_tasks[0]
    episodes = history_episodes(task, HistoryStore(run.config).folder(task))
    starts = episodes.transitions["observation"][episodes.start]
    assert len(episodes.start) > 10 and (starts == 4).all()


def test_the_world_is_asked_to_draw_every_recorded_field_of_an_episode(run):
    class Painter:
        def frames(self, task, transitions):
            self.task, self.transitions = task, transitions
            return None

    world, task = Painter(), run.split.train_tasks[0]
    episodes = next(rollout_episodes(run.folder / "trajectories.npz", 1))
    assert episodes.frames(world, 1) is None
    assert world.transitions.keys() == {"observation", "action", "reward", "next_observation"}
    assert world.transitions["reward"].sum() == episodes.returns[1]
    history = history_episodes(task, HistoryStore(run.config).folder(task))
    history.frames(world, 2)
    assert world.task is task and world.transitions.keys() == FIELDS.keys()
    assert len(world.transitions["action"]) == history.stop[2] - history.start[2]


def test_videos_that_are_up_to_date_are_kept_and_those_of_other_goals_removed(run):
    (run.videos / "held_out_7-7.mp4").write_bytes(b"of another split")
    before = {path: path.stat().st_mtime_ns for path in run.videos.glob("*_?-?.mp4")}
    assert record(run) == (0, len(before) - 1)
    assert not (run.videos / "held_out_7-7.mp4").exists()
    assert all(path.stat().st_mtime_ns == before[path] for path in run.videos.iterdir())


def test_damaged_trajectories_are_a_sentence(tmp_path):
    (tmp_path / "trajectories.npz").write_bytes(b"PK damaged")
    with pytest.raises(CorruptError, match="not what evaluation writes"):
        next(rollout_episodes(tmp_path / "trajectories.npz", 1))
