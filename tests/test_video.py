"""Videos: a decoded file has the frames that were drawn, and a run shows the right episodes."""

import gymnasium
import imageio_ffmpeg
import numpy as np
import pytest
from small_run import evaluated_run

import envs
from ad.data.spec import OBSERVATIONS
from ad.errors import MachineError
from ad.reporting import video
from ad.reporting.record import FPS, EpisodeSequence, episode_montage, record, rollout_episodes
from envs.tasks import task_name


def decoded(path) -> np.ndarray:
    """All frames of a video, uint8 [T, H, W, 3]."""
    reader = imageio_ffmpeg.read_frames(str(path))
    width, height = next(reader)["size"]
    return np.array([np.frombuffer(f, np.uint8).reshape(height, width, 3) for f in reader])


def gray_frames(count: int, height: int, width: int) -> np.ndarray:
    shades = np.linspace(0, 250, count).astype(np.uint8)[:, None, None, None]
    return np.broadcast_to(shades, (count, height, width, 3)).copy()


def test_a_video_opened_again_has_its_frames_at_an_even_size(tmp_path):
    height, width = 33, 47
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


def test_an_ffmpeg_that_fails_is_an_error_and_leaves_no_file(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\ncat > /dev/null\necho no libx264 >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    with pytest.raises(MachineError, match=r"ffmpeg could not write .*no libx264"):
        video.write_video(tmp_path / "out" / "a.mp4", gray_frames(3, 32, 32), fps=8)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_panel_that_ended_holds_its_last_frame():
    short, long = gray_frames(2, 8, 8), gray_frames(5, 8, 8)
    both = video.side_by_side([short, long], gap=4)
    assert both.shape == (5, 8, 20, 3)
    assert (both[1:, :, :8] == short[-1]).all() and (both[:, :, 12:] == long).all()


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


def test_videos_that_are_up_to_date_are_kept_and_those_of_other_goals_removed(run):
    (run.videos / "held_out_7-7.mp4").write_bytes(b"of another split")
    before = {path: path.stat().st_mtime_ns for path in run.videos.glob("*_?-?.mp4")}
    assert record(run) == (0, len(before) - 1)
    assert not (run.videos / "held_out_7-7.mp4").exists()
    assert all(path.stat().st_mtime_ns == before[path] for path in run.videos.iterdir())


def test_a_gymnasium_environment_plays_its_held_out_episodes_again(smoke, tmp_path):
    slippery = "[{is_slippery: true}, {is_slippery: true, max_episode_steps: 50}]"
    cliffs = ["--env.id", "CliffWalking-v1", "--env.tasks", slippery]
    split = ["--split.num_train_tasks", "1", "--model.encoder", "table"]
    run = evaluated_run(smoke(tmp_path, *cliffs, *split))
    assert record(run) == (1, 1)
    (path,) = run.videos.iterdir()
    assert path.name.startswith("held_out_") and len(decoded(path)) > FPS


def test_a_mission_in_words_stands_above_its_episode(monkeypatch):
    world = envs.make_base("BabyAI-GoToLocal-v0", [{"seed": 3}], tasks=[[0]])
    theirs, seen = gymnasium.make("BabyAI-GoToLocal-v0"), world.reset()[0]
    fields = {f"{role}-{name}": seen[name] for role in OBSERVATIONS for name in seen}
    fields["action"] = np.array([6])  # done, which changes nothing
    sequence = EpisodeSequence(np.array([0]), fields, *np.array([[0], [1], [0]]))
    texts = []
    monkeypatch.setattr(video, "add_caption", lambda image, text, **_: texts.append(text) or image)
    assert episode_montage(world, sequence, {0}, "Title").shape[0] > 1
    assert texts == [theirs.reset(seed=3)[0]["mission"], "episode 1 of 1 · return 0", "Title"]
