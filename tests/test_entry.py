"""An entry: its claim stands only if its weights give it, and no forgery of the file is run."""

import gzip
import io
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml
from training_run import train

import ad.entry
import ad.entry_scores
from ad.entry import submit, verify
from ad.entry_scores import evaluate_files
from ad.errors import ADError, ConfigError, CorruptError, MachineError
from ad.exchange.release import CLAIM, EVALUATED, MOST_BYTES, SUMS
from ad.rollout.program import ProgramPolicy
from ad.rollout.rollout import rollout, sampled
from ad.runtime.files import sha256
from ad.runtime.isolated import call_isolated
from ad.runtime.run import Run
from envs import make_vec

README = Path(ad.entry.__file__).parent / "exchange" / "README.md"
WEIGHTS, CONFIG = "model.safetensors", "config.yaml"
Members = dict[str, bytes]


@pytest.fixture(scope="module")
def run(evaluated):
    return evaluated


@pytest.fixture(scope="module")
def entry(run) -> Path:
    """The file of its entry; only to be read."""
    return submit(run)


@pytest.fixture
def members(entry) -> Members:
    with tarfile.open(entry) as file:
        return {member.name: file.extractfile(member).read() for member in file}


@pytest.fixture
def pack(tmp_path) -> Callable[[Members], Path]:
    """pack(members) writes an entry with new hashes of the members and returns its path."""

    def write(members: Members, hashed: bool = True) -> Path:
        if hashed:
            for name in EVALUATED:
                (tmp_path / "member").write_bytes(members[name])
                hashes[name] = sha256(tmp_path / "member")
            sums = "".join(f"{hashes[name]}  {name}\n" for name in EVALUATED)
            members = members | {SUMS: sums.encode()}
        return write_tar(tmp_path / "entry.tar", members.items())

    hashes: dict[str, str] = {}
    return write


def write_tar(path: Path, members, **properties) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as file:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for key, value in properties.items():
                setattr(member, key, value)
            file.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def here(monkeypatch):
    """Evaluate in this process, which spares the start of another one."""
    monkeypatch.setattr(ad.entry, "call_isolated", lambda name, own, seconds: evaluate_files(**own))


@pytest.fixture
def nothing_runs(monkeypatch):
    monkeypatch.setattr(ad.entry, "call_isolated", lambda *_: pytest.fail("it was evaluated"))


def refused(path: Path, text: str, error: type[ADError] = CorruptError) -> None:
    with pytest.raises(error, match=text) as raised:
        verify(path, seed=1)
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)


def test_an_honest_claim_stands_to_the_digit_in_a_process_of_its_own(entry, run):
    verdict = verify(entry, seed=1)
    assert verdict.problems == []
    own = json.loads((run.folder / "results.json").read_text())
    assert verdict.again["splits"] == own["splits"]
    assert verdict.again["evaluated_on"] == own["evaluated_on"]
    fresh = verdict.again["fresh"]
    assert fresh["num_tasks"] == len(run.split.held_out_tasks)
    assert fresh["num_episodes"] == run.config.evaluation.episodes
    assert "evaluation seeds from 1 on" in verdict.again["about"]


def changed(members: Members, name: str, change: Callable[[dict], object]) -> Members:
    """Return the members with a change of the plain data in the member `name`."""
    load, dump = (json.loads, json.dumps) if name == CLAIM else (yaml.safe_load, yaml.safe_dump)
    data = load(members[name])
    change(data)
    return members | {name: dump(data).encode()}


def raise_nauc(claim: dict) -> None:
    claim["splits"]["held_out"]["nauc"] += 0.001


def test_a_forged_number_is_found_by_the_evaluation(members, pack, here):
    forged = changed(members, CLAIM, raise_nauc)
    [problem] = verify(pack(forged), seed=1).problems
    assert "its NAUC on held-out tasks is" in problem

    def of_another_machine(claim: dict) -> None:
        raise_nauc(claim)
        claim["evaluated_on"]["torch"] = "1.0"

    small = changed(members, CLAIM, of_another_machine)
    assert verify(pack(small), seed=1).problems == []  # within the interval
    large = changed(small, CLAIM, lambda claim: claim["splits"]["train"].update(nauc=0.999))
    [problem] = verify(pack(large), seed=1).problems
    assert "its NAUC on train tasks is 0.999, and the evaluation gives 0." in problem


def test_a_claim_that_is_no_number_is_cut_and_without_control_characters(members, pack, here):
    for torch_version in ("1.0", torch.__version__):

        def forge(claim: dict, torch_version: str = torch_version) -> None:
            claim["splits"]["held_out"]["nauc"] = "\x1b[2J" * 1000
            claim["evaluated_on"]["torch"] = torch_version

        [problem] = verify(pack(changed(members, CLAIM, forge)), seed=1).problems
        assert "NAUC on held-out tasks is '\\x1b[2J" in problem and len(problem) < 200


def test_a_name_that_is_no_folder_name_is_refused(members, pack, here):
    named = changed(members, CONFIG, lambda config: config.update(name="[x](http://x)"))
    refused(pack(named), "name .* must be a plain folder name", ConfigError)


def test_a_forged_task_is_found_by_the_evaluation(members, pack, here):
    def forge(claim: dict) -> None:
        claim["splits"]["held_out"]["per_task"][0]["nauc"] = 0.9

    [problem] = verify(pack(changed(members, CLAIM, forge)), seed=1).problems
    assert problem == "its scores of single held-out tasks are not those of the evaluation"


def test_other_weights_are_found_by_the_evaluation(members, pack, here, tmp_path):
    (tmp_path / WEIGHTS).write_bytes(members[WEIGHTS])
    with safetensors.safe_open(tmp_path / WEIGHTS, "pt") as file:
        header = file.metadata()
        weights = {name: file.get_tensor(name) * 1.5 for name in file.keys()}  # noqa: SIM118
    others = members | {WEIGHTS: safetensors.torch.save(weights, header)}
    assert verify(pack(others), seed=1).problems


def test_train_tasks_that_are_declared_as_held_out_are_found(members, pack, here, run):
    trained = run.split.train_tasks[:2].tolist()

    def declare(config: dict) -> None:
        config["split"] |= {"held_out": trained, "num_train_tasks": 2}

    refused(
        pack(changed(members, CONFIG, declare)), "was trained on 2 of the held-out", ConfigError
    )


def test_tasks_of_another_split_are_found(members, pack, here):
    forged = changed(members, CLAIM, lambda claim: claim.update(split="0" * 64))
    refused(pack(forged), "its list of tasks is not the one")


def test_a_model_that_is_worse_on_fresh_tasks_is_found(members, pack, here, monkeypatch):
    def worse(run, new_policy, seed):
        entry = ad.entry_scores._splits(run, new_policy, Path(run.config.root) / "worse")["train"]
        return "others", entry | {"nauc": -1, "num_tasks": 10, "ci95": {"nauc": [-1.5, -0.5]}}

    monkeypatch.setattr(ad.entry_scores, "_fresh", worse)
    [problem] = verify(pack(members), seed=1).problems
    assert problem.startswith("on others its NAUC is -1.000, below the interval")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("method", {"name": "forged.py:Mine"}),
        ("source", {"algorithm": "os:system"}),
        ("env", {"id": "forged:Mine-v0"}),
        ("env", {"id": "CartPole-v1"}),
        ("env", {"kwargs": {"size": 3, "layout": ["my.forged:Layout"]}}),
        ("model", {"encoders": {"image": "forged.py:Mine"}}),
    ],
)
def test_a_class_outside_the_suite_is_not_imported(members, pack, nothing_runs, setting, value):
    forged = changed(members, CONFIG, lambda config: config[setting].update(value))
    refused(pack(forged), "which is no component of this suite", ConfigError)


def test_a_source_that_reads_files_of_another_machine_is_refused(members, pack, nothing_runs):
    settings = {"entries": [{"experiment": "/tmp/theirs.yaml", "at": 1.0}]}
    source = {"algorithm": "demonstrations", "settings": settings}
    forged = changed(members, CONFIG, lambda config: config["source"].update(source))
    refused(
        pack(forged), "has source.algorithm demonstrations, whose agents are files", ConfigError
    )


def test_a_text_that_YAML_cannot_read_is_refused(members, pack, nothing_runs):
    text = members[CONFIG].replace(b"device:", b"x: 1:" + b"00:" * 300 + b"00.5\ndevice:")
    refused(pack(members | {CONFIG: text}), "is no entry")


@pytest.mark.parametrize("name", ["model.pt", "run.py", "../../x", "/tmp/x", "./config.yaml"])
def test_a_member_that_no_entry_has_is_refused(members, pack, nothing_runs, name):
    refused(pack(members | {name: b"import os"}), f"has the member '{name}', which no entry has")


def test_a_changed_member_is_refused(members, pack, nothing_runs):
    changed = members[WEIGHTS][:-1] + bytes([members[WEIGHTS][-1] ^ 1])
    refused(pack(members | {WEIGHTS: changed}, hashed=False), "the SHA-256 of model.safetensors")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_link_is_refused(members, tmp_path, nothing_runs, kind):
    path = tmp_path / "entry.tar"
    with tarfile.open(path, "w") as file:
        member = tarfile.TarInfo(CONFIG)
        member.type, member.linkname = kind, "/etc/passwd"
        file.addfile(member)
    refused(path, f"its member {CONFIG} is a link or no file")


def test_a_member_that_is_there_twice_is_refused(members, tmp_path, nothing_runs):
    twice = [*members.items(), (CONFIG, members[CONFIG])]
    refused(write_tar(tmp_path / "entry.tar", twice), f"its member {CONFIG} is there twice")


def test_a_member_that_is_too_large_is_refused(members, pack, nothing_runs, tmp_path):
    refused(pack(members | {CONFIG: bytes(4_000_001)}), "has more than 4,000,000 bytes")
    with open(tmp_path / "entry.tar", "wb") as file:
        file.truncate(10**12)  # without blocks on the disk
    refused(tmp_path / "entry.tar", "it has more than")


def test_compression_is_refused(entry, tmp_path, nothing_runs):
    bomb = tmp_path / "entry.tar"
    bomb.write_bytes(gzip.compress(entry.read_bytes() + bytes(10**7)))
    refused(bomb, "is no entry as `ad submit` writes it")


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.6, 0.99, 1.01])
def test_a_file_that_is_cut_or_longer_is_refused(entry, tmp_path, nothing_runs, share):
    content = entry.read_bytes()
    path = tmp_path / "entry.tar"
    path.write_bytes((content + bytes(1024))[: int(share * len(content))])
    refused(path, "is no entry")


def test_properties_of_members_are_refused(members, tmp_path, nothing_runs):
    path = write_tar(tmp_path / "entry.tar", members.items(), mode=0o777, uname="root")
    refused(path, "properties of members")


@pytest.mark.parametrize("content", [b"[]", b"{", b'{"splits": 1}', b"[" * 10**5, b"\xff"])
def test_a_claim_that_is_no_claim_is_refused(members, pack, nothing_runs, content):
    refused(pack(members | {CLAIM: content}), "is no entry")


@pytest.mark.parametrize("content", [b"", b"a: &x [*x]", b"a: [" * 2000, b"env: 1\n"])
def test_settings_that_are_no_settings_are_refused(members, pack, here, content):
    with pytest.raises(ADError):
        verify(pack(members | {CONFIG: content}), seed=1)


def test_a_model_that_is_too_large_for_an_entry_cannot_be_submitted(run, monkeypatch):
    monkeypatch.setitem(MOST_BYTES, WEIGHTS, 1000)
    with pytest.raises(ConfigError, match="has more than the 1,000 bytes of an entry"):
        submit(run)


def test_a_run_without_results_cannot_be_submitted(experiment):
    with pytest.raises(ConfigError, match="run `ad evaluate`"):
        submit(train(experiment(training__precision="float32")))


@pytest.mark.parametrize(
    ("function", "arguments", "text", "error"),
    [
        ("signal:pause", {}, "it takes more than 1 s", MachineError),
        ("os:abort", {}, "ended without an answer", MachineError),
        ("builtins:bytearray", {"source": 10**11}, "needs more than 8 GiB", MachineError),
        ("socket:socket", {}, "this process has no network", CorruptError),
        ("builtins:int", {"x": 1}, "TypeError", CorruptError),
        ("ad.config.parser:read_text", {"path": "missing.yaml"}, "no file missing", ConfigError),
    ],
)
def test_what_a_child_process_cannot_do_is_one_sentence(function, arguments, text, error):
    with pytest.raises(error, match=text) as raised:
        call_isolated(function, arguments, 1 if function == "signal:pause" else 60)
    assert "\n" not in str(raised.value)


@pytest.fixture
def example(tmp_path) -> Path:
    """The program that the README shows."""
    path = tmp_path / "q_table.py"
    [code] = re.findall(r"```python\n(import json\nimport sys\n.*?)```", README.read_text(), re.S)
    path.write_text(code)
    return path


def test_a_program_enters_and_runs_only_if_it_is_asked_for(experiment, example, monkeypatch):
    entry = submit(run := Run.open(experiment()), example)
    verdict = verify(entry, run_program=True, seed=1)
    assert verdict.problems == [] and verdict.again["program"]
    assert verdict.claim["split"] == run.split.hash and "fingerprint" not in verdict.claim
    monkeypatch.setattr(ad.entry, "call_isolated", lambda *_: pytest.fail("it was evaluated"))
    refused(entry, "holds a program, which is code that nobody has checked", ConfigError)
    with pytest.raises(ConfigError, match="there is no file"):
        submit(run, example.with_name("missing.py"))


def test_the_program_of_the_readme_learns(example):
    env = make_vec("DarkRoom-v0", [[0, 0], [0, 1], [2, 2]], episode_length=6, size=3)
    found = rollout(ProgramPolicy(example, 3, 5, 6), env, [1, 2, 3], 40, sampled()).successes
    assert found[:, :5].mean() < 0.7 and found[:, -10:].mean() > 0.9


ECHO = """
import sys
for line in sys.stdin:
    print(line, end="", file=sys.stderr, flush=True)
    if "act" in line[:20]:
        print([[1, 2.5], [-1, 0]][:2 if "[4, 5]" in line else 1], flush=True)
"""


def test_a_program_hears_the_calls_of_the_rollout(tmp_path):
    (tmp_path / "echo.py").write_text(ECHO)
    policy = ProgramPolicy(tmp_path / "echo.py", 2, 2, 9)
    policy.set_action_mask(torch.tensor([[True, True], [True, False]]))
    two, flags = torch.tensor([4, 5]), torch.tensor([False, True])
    assert policy.act(two, torch.tensor([0, 3])).tolist() == [[1, 2.5], [-1, 0]]
    policy.observe(torch.tensor([1, 0]), torch.tensor([0.5, 1]), flags, ~flags, {"view": two})
    policy.select(torch.tensor([1]))
    assert policy.act({"view": two[1:]}, torch.tensor([4])).tolist() == [[1, 2.5]]
    policy._errors.seek(0)
    assert [json.loads(line) for line in policy._errors.read().splitlines()] == [
        {"call": "start", "num_envs": 2, "num_actions": 2, "episode_length": 9}
        | {"action_mask": [[True, True], [True, False]]},
        {"call": "act", "observation": [4, 5], "time": [0, 3]},
        {"call": "observe", "action": [1, 0], "reward": [0.5, 1.0], "terminated": [False, True]}
        | {"truncated": [True, False], "next_observation": {"view": [4, 5]}},
        {"call": "select", "envs": [1]},
        {"call": "act", "observation": {"view": [5]}, "time": [4]},
    ]


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("import time; time.sleep(100)", r"the program gives no answer for 0\.5 s"),
        ("import nothing_here", "exit code 1: ModuleNotFoundError: No module named 'nothing_here'"),
        ("", "ended with exit code 0$"),
        ("input(); print('hello'); input()", "answers 'hello' to act: it must be a line with a"),
        ("input(); print([[1, 2, 3]] * 3); input()", "a list of 2 lists of 3 finite numbers"),
        ("input(); print([[1, 2, float('nan')]] * 2); input()", "2 lists of 3 finite numbers"),
        ("input(); print('[' * 440); input()", "2 lists of 3 finite numbers"),
        ("while True: print('1', end='')", "answers with a line of more than 448 bytes"),
        ("import os, time; os.close(1); time.sleep(9)", "has closed its input or its output"),
    ],
)
def test_a_program_that_fails_is_one_sentence(tmp_path, code, text):
    (tmp_path / "program.py").write_text(code)
    policy = ProgramPolicy(tmp_path / "program.py", 2, 3, 9, seconds=0.5 if "100" in code else 20)
    with pytest.raises(ConfigError, match=text) as raised:
        policy.act(torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
    assert "\n" not in str(raised.value)


def test_a_program_that_reads_nothing_is_one_sentence(tmp_path):
    (tmp_path / "program.py").write_text("import time; time.sleep(100)")
    policy, many = ProgramPolicy(tmp_path / "program.py", 1, 1, 1, 0.5), torch.zeros(100_000)
    with pytest.raises(ConfigError, match="does not read its input"):
        policy.act(many, many)
