"""The configuration: good YAML loads, and bad YAML is refused with a sentence for each problem."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from processes import ROOT
from source_words import BANDIT_SOURCES

from ad.config.fields import field
from ad.config.options import read_words
from ad.config.parser import COMPONENTS, load, load_file, load_words
from ad.config.schema import Experiment, config_hash, diff, diff_text, dump
from ad.data.histories import HistoryStore
from ad.errors import ConfigError

TABLES = {"simple_crossing": [pytest.mark.slow]}  # it takes half a minute to make them
CONFIGS = [
    pytest.param(path, marks=TABLES.get(path.stem, []), id=path.stem)
    for path in sorted((ROOT / "configs").glob("*.yaml"))
]
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)


def config(*words: str) -> Experiment:
    return load(words)


def message(*words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(words)
    return str(caught.value)


def message_about(text: str | bytes, folder: Path) -> str:
    """Return the error message for a YAML file with the content `text`."""
    file = folder / "file.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return message("--config_path", str(file)).replace(f"{file}", "file.yaml")


@pytest.mark.parametrize("path", CONFIGS)
def test_every_experiment_loads_and_is_named_after_its_file(path):
    assert config("--config_path", str(path)).name == path.stem


@pytest.mark.parametrize("path", CONFIGS)
def test_every_experiment_comes_back_equal_from_its_dump(path, tmp_path):
    experiment = config("--config_path", str(path))
    (tmp_path / "config.yaml").write_text(dump(experiment))
    assert config("--config_path", str(tmp_path / "config.yaml")) == experiment


@given(NAMES)
def test_a_name_that_looks_like_a_number_or_a_boolean_comes_back_from_the_dump(tmp_folder, name):
    experiment = config("--name", name)
    (tmp_folder / "config.yaml").write_text(dump(experiment))
    assert config("--config_path", str(tmp_folder / "config.yaml")).name == name


def test_quickstart_states_the_defaults():
    """But for the second temperature, which is refused where rewards are not 0 and 1."""
    quickstart = config("--config_path", str(ROOT / "configs/quickstart.yaml"))
    assert diff(config(), quickstart) == {"evaluation.temperature_known": 0.4}


def test_an_empty_section_means_the_defaults(tmp_path):
    (tmp_path / "section.yaml").write_text("training:\n")
    assert config("--config_path", str(tmp_path / "section.yaml")) == config()


def test_an_option_goes_before_the_file_and_the_last_of_two_counts(tmp_path):
    (tmp_path / "file.yaml").write_text("training: {steps: 300, batch_size: 4}")
    words = ["--config_path", str(tmp_path / "file.yaml"), "--training.steps=400"]
    training = config(*words, "--training.steps", "500").training
    assert (training.steps, training.batch_size) == (500, 4)


def test_the_help_is_made_without_torch():
    code = (
        "import sys; from ad.cli import VERBS;"
        "VERBS['run'](['--help', 'all']); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_problems_of_a_file_and_of_overrides_come_in_one_message(tmp_path):
    file = tmp_path / "file.yaml"
    file.write_text("training:\n  stps: 3")
    with pytest.raises(ConfigError) as caught:
        load_file(file, **{"training.steps": 0})
    problems = str(caught.value).split("\n  ")[1:]
    assert problems == [
        f"training.stps ({file}, line 2) is not a setting; did you mean steps?",
        "training.steps must be at least 1, not 0",
    ]


@pytest.mark.parametrize("section", COMPONENTS)
def test_the_settings_of_every_registered_component_are_completed(section):
    registry, field = COMPONENTS[section]
    for name in registry:
        world = "BernoulliBandit-v0" if name in BANDIT_SOURCES else "DarkRoom-v0"
        part = getattr(config(f"--{section}.{field}", name, "--env.id", world), section)
        registry.load(name).Settings(**part.settings)


# One refusal in a line: the setting that is at fault, and the words of the command line.
REFUSED = """\
training.stps --training.stps 3
--steps --steps 3
--trainng.steps --trainng.steps 3
source.settings.discont --source.settings.discont 1
env --env.kwargs.szie 3
training.steps --training.steps 2.7
training.steps --training.steps true
training.steps --training.steps 0x10
training.steps --training.steps 1:30
training.steps --training.steps=
training.compile --training.compile 1
training.learning_rate --training.learning_rate fast
training.learning_rate --training.learning_rate .nan
training.learning_rate --training.learning_rate 1e999
training.train_seed --training.train_seed 9223372036854775808
training --training 5
env.kwargs --env.kwargs [1]
split.held_out --split.held_out [[1,x]]
source.settings.hidden --source.settings.hidden 2.5
training.steps --training.steps 0
training.learning_rate --training.learning_rate 0
model.dropout --model.dropout 1.0
data.windows_from_start --data.windows_from_start 1.5
source.settings.discount --source.settings.discount 3
name --name ../x
name --name=-x
root --root /no/such/folder
env --env.id DarkRom-v0
env.change --env.change 2.5
env.change --env.change 1e300
env.change --env.change 20 --evaluation.episodes 20
env.change --env.change 2 --evaluation.calibration [0,1] --method.name decision_transformer
env.change --env.change 2 --evaluation.env_steps 100
env.change --env.change 2 --env.id OddEvenBandit-v0 --env.kwargs {"min_arms":4}
env.change --env.change 2 --method.name dpt
env.change --env.change 2 --source.algorithm posterior_sampling
env.change --env.change 2 --split.num_train_tasks 79
evaluation.worlds --evaluation.worlds [{"change":1.5}]
evaluation.worlds --env.id BernoulliBandit-v0 --source.algorithm ucb --evaluation.episodes 12 \
  --evaluation.worlds [{"drift":0.1}]
evaluation.worlds --env.id BernoulliBandit-v0 --source.algorithm ucb --evaluation.episodes 20 \
  --evaluation.worlds [{"drift":0.1,"change":2}]
evaluation.episodes --env.id BernoulliBandit-v0 --source.algorithm ucb --evaluation.episodes 21 \
  --env.kwargs {"drift":0.1} --source.env_steps 4000
source.env_steps --env.id BernoulliBandit-v0 --source.algorithm ucb --evaluation.episodes 20 \
  --env.kwargs {"drift":0.1} --source.env_steps 4020
method.settings.trial_steps --env.id BernoulliBandit-v0 --evaluation.episodes 20 \
  --env.kwargs {"drift":0.1} --method.name rl2 --data.context_length 401
source.settings.restarts --source.algorithm q_learning --source.settings.restarts true \
  --source.settings.shared true
evaluation.worlds --evaluation.worlds [{"change":2}] --split.num_train_tasks 79
source.settings.window --source.algorithm posterior_sampling --source.settings.window 5
source.algorithm --env.id DarkRoom-Hard-17x17-v1 --source.algorithm posterior_sampling \
--source.settings.window 4
source.source_seed --split.tuning true --source.source_seed 1
source.algorithm --source.algorithm a3c
source.algorithm --source.algorithm ucb
source.algorithm --source.algorithm thompson_sampling
source.algorithm --source.algorithm q_learning --env.id WaterMaze-v0 --model.encoder mlp
source.algorithm --source.algorithm posterior_sampling --env.id MiniGridTable-v0 \
  --env.kwargs.minigrid_id MiniGrid-Empty-5x5-v0 --env.kwargs.seeds [0,1] \
  --split.num_train_tasks 1 --model.encoder table
source.num_envs --source.algorithm psrl --env.id RandomMDP-v0 --env.kwargs.num_states 128 \
  --model.encoder table --source.num_envs 1000
method.settings.env_steps --method.name rl2 --method.settings.env_steps 30
method.settings.minibatches --method.name rl2 --method.settings.minibatches 3
method.settings.trial_steps --method.name rl2 --method.settings.trial_steps 4
method.settings.trial_steps --method.name rl2 --method.settings.trial_steps 400
method.settings.expert_fraction --method.name expert_distillation \
  --method.settings.expert_fraction 1.1
method.name --method.name nothing
model.heads --model.heads 3
training.warmup_steps --training.warmup_steps 1001
training.warmup_steps --training.warmup_steps 2001 --training.schedule_steps 2000
training.schedule_steps --training.schedule_steps 999
training.micro_batches --training.micro_batches 33
training.segments --training.segments 2
training.segments --model.memory xl
training.segments --model.memory gru --training.segments 3
training.segments --model.memory gru --training.segments 2 --method.name behavior_cloning
training.segments --model.memory gru --training.segments 2 --method.name decision_transformer
training.segments --model.memory gru --training.segments 2 --method.name dpt \
  --method.settings.contexts shuffled
training.activation_checkpointing --model.memory gru --training.segments 2 \
  --training.activation_checkpointing true
model.position --model.memory gru --training.segments 2 --model.position window
training.final_learning_rate --training.final_learning_rate 1
source.env_steps --source.env_steps 199999
source.env_steps --source.env_steps 190
data.history_stride --data.history_stride 20001
data.history_stride --data.env_steps 390
data.env_steps --data.env_steps 200010
data.env_steps --data.env_steps 100001
data.env_steps --data.env_steps 190
data.actors_per_task --data.actors_per_task 10
data.held_out_actors --data.held_out_actors 10
data.windows_to_end --data.windows_to_end 0.6
evaluation.policy.asked_return --method.name decision_transformer \
--evaluation.policy.asked_return true
evaluation.calibration --method.name behavior_cloning --evaluation.calibration [1]
evaluation.asked_returns --method.name behavior_cloning --evaluation.asked_returns [1]
evaluation.calibration --method.name decision_transformer --evaluation.calibration [much]
method.settings.best_fraction --method.name decision_transformer --method.settings.best_fraction 0
evaluation.worlds --evaluation.worlds [{"size":11}]
evaluation.worlds --model.encoder table --evaluation.worlds [{"size":7}]
evaluation.worlds --evaluation.worlds [{"szie":7}]
evaluation.worlds --evaluation.worlds [{"num_envs":7}]
evaluation.worlds --evaluation.worlds [{"size":9},{"size":9}]
model.encoder --evaluation.worlds [{"size":7}] --model.encoder offsets \
  --method.name in_context_planning
model.position --model.position rotary --model.width 6
model.heads --model.memory gru --model.heads 4
model.position --model.memory gru --model.position rotary
model.tokenizer --model.memory gru --model.tokenizer modal
model.positions --model.position window --model.positions 63
model.positions --model.position history --model.positions 1999
model.positions --model.position history --data.history_stride 5
model.positions --model.position history --model.positions 799 --evaluation.env_steps 400 \
  --training.eval_episodes 40
model.reward_token --model.reward_token before
env.kwargs --env.kwargs.num_envs 3
split --env.kwargs.size 3
split --split.num_train_tasks 80
split --split.held_out [[9,9]]
--training.steps --training.steps
model.heads --model.heads x
evaluation.policy.context_update --method.name dpt --evaluation.policy.context_update day
method.settings.contexts --method.name dpt --method.settings.contexts sorted
method.name --method.name dpt --env.id WaterMaze-v0 --model.encoder mlp
evaluation.policy.target_return --evaluation.policy.target_return 1
evaluation.policy.plan_steps --method.name in_context_planning --evaluation.policy.plan_steps 1.5
evaluation.policy.rewards --method.name in_context_planning --evaluation.policy.rewards mode
evaluation.policy.asked_before_reward --method.name decision_transformer \
  --evaluation.policy.asked_before_reward 1
evaluation.calibration --method.name decision_transformer --evaluation.env_steps 200 \
  --evaluation.calibration [0,1]
model.tokenizer --method.name context_value --model.tokenizer conditioned
model.encoder --model.encoder.image mlp
evaluation.temperature --evaluation.temperature.x 1
model.tokenizer --method.name rl2 --model.tokenizer conditioned
model.dropout --method.name rl2 --model.dropout 0.1
evaluation.temperature_known --method.name rl2 --evaluation.temperature_known 0.5
evaluation.temperature_known --method.name behavior_cloning --evaluation.temperature_known 0.5
evaluation.temperature_known --method.name context_value --evaluation.temperature_known 0.5
env.change --method.name context_value --env.change 2
method.settings.expert_fraction --method.name expert_distillation \
  --method.settings.expert_fraction 0.0009
method.name --method.name source --source.algorithm demonstrations
evaluation.worlds --evaluation.worlds [{"change":20}] --evaluation.episodes 20
evaluation.worlds --evaluation.worlds [{"change":"x"}]
evaluation.worlds --evaluation.worlds [{"size":7},{}]
evaluation.worlds --evaluation.worlds [{"change":0}]
method.name --method.name in_context_planning --env.id WaterMaze-v0 --model.encoder mlp
model.memory --model.memory retrieval --method.name rl2
model.memory --model.memory retrieval --method.name dpt --method.settings.contexts shuffled
model.memory --model.memory retrieval --method.name behavior_cloning
model.memory --model.memory retrieval --method.name context_value
data.permute --data.permute both --env.id WaterMaze-v0 --model.encoder mlp \
  --source.algorithm stable_baselines3
data.permute --data.permute actions --method.name tests/components.py:TimeLeft
quickstart.yaml quickstart.yaml
env --env.id FrozenLakeMaps-v0 --env.kwargs.p 0.3
split.held_out --split.held_out [[1,2]
configs/quikstart.yaml --config_path configs/quikstart.yaml
/ --config_path /"""


@pytest.mark.parametrize("line", REFUSED.splitlines())
def test_a_wrong_value_is_refused_in_one_sentence_that_names_its_setting(line):
    setting, *words = line.split()
    (sentence,) = message(*words).splitlines()
    assert setting in re.split(r"[ :;]", sentence)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("--training.stps 3", "steps"),
        ("--steps 3", "--training.steps"),
        ("--trainng.steps 3", "--training"),
        ("--env.kwargs.szie 3", "size"),
        ("--env.id DarkRom-v0", "DarkRoom-v0"),
        ("--source.algorithm a3c", "a2c"),
        ("--config_path configs/quikstart.yaml", "configs/quickstart.yaml"),
    ],
)
def test_a_misspelled_name_gets_the_one_that_was_meant(words, hint):
    assert message(*words.split()).endswith(f"did you mean {hint}?")


# The content of a file and the start of the sentence that refuses it.
BAD_FILES = [
    ("training:\n  stps: 3", "training.stps (file.yaml, line 2) is not a setting"),
    ("name: no", "name (file.yaml, line 1)"),
    ("name: 2024-08-01", "name (file.yaml, line 1)"),
    ("training:\n  steps: 1\n  steps: 2", "training.steps (file.yaml, line 2) is set twice"),
    ("training: {1: 2}", "training.1 is not a plain text key"),
    ("training: {<<: {steps: 3}}", "training"),
    ("training: {steps: null}", "training.steps (file.yaml, line 1)"),
    ("training: {steps: 2.0}", "training.steps (file.yaml, line 1)"),
    ("training: {steps: '5'}", "training.steps (file.yaml, line 1)"),
    (f"training: {{steps: {'9' * 5000}}}", "training.steps"),
    ("training: {learning_rate: true}", "training.learning_rate (file.yaml, line 1)"),
    ("training: {learning_rate: -.inf}", "training.learning_rate (file.yaml, line 1)"),
    ("training: {learning_rate: [.NaN]}", "training.learning_rate"),
    ("training: {compile: 'true'}", "training.compile (file.yaml, line 1)"),
    ("env: {kwargs: {size: .nan}}", "env.kwargs.size"),
    ("env: !!set {a, b}", "env"),
    ("split: {held_out: 3}", "split.held_out (file.yaml, line 1)"),
    ("[1, 2]", "file.yaml must be a group of settings"),
    ("null", "file.yaml must be a group of settings"),
    ("env: &a {id: x}\nsplit: *a", "file.yaml is not YAML: an alias"),
    ("env: &a {kwargs: *a}", "file.yaml is not YAML: an alias"),
    ("env: !!python/object/apply:os.system ['true']", "env (file.yaml, line 1) has a value of"),
    ("name: !!binary aGVsbG8=", "name (file.yaml, line 1) has a value of"),
    ("name: !!int x", "name (file.yaml, line 1)"),
    ("training: {steps: [}", "file.yaml is not YAML"),
    ("a: 1\n---\nb: 2", "file.yaml is not YAML"),
    ("x: " + "[" * 5000, "file.yaml is nested too deeply"),
    ("x: " + "a" * 1_000_000, "file.yaml is larger than 1000000 bytes"),
    ("name: \x00", "file.yaml is not YAML"),
    (b"name: \xff\xfe", "file.yaml is not a text file"),
]


@pytest.mark.parametrize(("text", "start"), BAD_FILES, ids=range(len(BAD_FILES)))
def test_a_bad_file_is_refused_with_the_line_of_its_mistake(text, start, tmp_path):
    assert message_about(text, tmp_path).startswith(start)


def test_all_problems_come_in_one_message(tmp_path):
    text = "name: 3\ntraining: {stps: 5, steps: 2.5}\nmodel: {heads: 0}\nenv: {id: Dark}"
    lines = message_about(text, tmp_path).splitlines()
    assert lines[0] == "5 problems, nothing was written:"
    assert [line.split()[0] for line in lines[1:]] == [
        "name", "training.stps", "training.steps", "model.heads", "env"
    ]  # fmt: skip


@given(st.text(max_size=60))
def test_any_text_is_a_configuration_or_gets_a_sentence(tmp_folder, text):
    (tmp_folder / "file.yaml").write_bytes(text.encode())
    try:
        load(["--config_path", str(tmp_folder / "file.yaml")])
    except ConfigError as error:
        assert str(error)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
PATHS = ["name", "env", "env.id", "env.kwargs", "env.tasks", "split.held_out", "source.settings",
         "source.env_steps", "model.tokenizer", "training.compile", "training.beta1"]  # fmt: skip


@given(st.sampled_from(PATHS), PLAIN)
def test_any_value_is_accepted_as_it_is_or_gets_a_sentence(path, value):
    try:
        experiment = config(f"--{path}", yaml.safe_dump(value))
    except ConfigError as error:
        assert path.split(".")[0] in str(error)
    else:
        for name in path.split("."):
            experiment = getattr(experiment, name)
        assert (
            dataclasses.is_dataclass(experiment)
            or value is None
            or experiment == value
            or path[0] in "ns"
        )


@given(st.lists(st.text(max_size=12), max_size=5))
def test_any_words_are_arguments_or_get_a_sentence(words):
    try:
        load(words)
    except ConfigError as error:
        assert str(error)


def test_the_hash_depends_on_what_can_change_a_result_and_on_nothing_else():
    experiment = config()
    assert config_hash(experiment) == config_hash(config("--device", "cpu", "--name", "other"))
    assert config_hash(experiment) != config_hash(config("--training.steps", "1501"))
    assert config_hash(experiment.env, experiment.source) == config_hash(
        *(getattr(config("--training.steps", "1501"), part) for part in ("env", "source"))
    )


def test_a_default_setting_of_an_algorithm_written_out_leaves_the_hash_alone():
    assert config_hash(config("--source.settings.hidden", "128")) == config_hash(config())


def test_the_difference_names_each_setting_that_changed():
    old, new = config(), config("--source.env_steps", "300000", "--env.kwargs.size", "9")
    assert diff_text(old, new) == [
        "source.env_steps: 200000 -> 300000",
        "env.kwargs.size: not set -> 9",
    ]


def test_a_limit_that_does_not_exist_is_a_mistake_of_the_declaration():
    with pytest.raises(TypeError, match="at_lest"):
        field(1, at_lest=0)


@pytest.fixture(scope="module")
def tmp_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


def test_the_default_histories_lie_where_they_always_did(tmp_path):
    assert HistoryStore(config("--root", str(tmp_path))).path.name == "darkroom_v0-a2c-492660f8"


def test_an_added_setting_enters_the_hash_only_where_it_differs_from_its_default():
    config = load([])
    for path, value in (("data.windows_to_end", "0.1"), ("model.norm", "none")):
        changed = load([f"--{path}", value])
        assert config_hash(changed) != config_hash(config)
        assert diff(changed, config) and path in diff(config, changed)
    # What the hash of the default configuration was before these settings existed.
    assert config_hash(config).startswith("3403e403e69f24c8")


def test_an_added_setting_of_a_method_enters_the_hash_only_where_it_differs_from_its_default():
    words = ["--method.name", "decision_transformer", "--method.settings.across_episodes"]
    default, plain, other = config(*words[:2]), config(*words, "false"), config(*words, "true")
    assert config_hash(plain) == config_hash(default) != config_hash(other)
    assert not diff(plain, default) and diff(other, default)
    assert config_hash(default).startswith(
        "36e15d173bc44cf4"
    )  # what it was before the setting existed


FILE = """
source: {algorithm: a2c, env_steps: 4000, settings: {learning_rate: 0.002, discount: 0.8}}
env: {kwargs: {size: 7}, episode_length: 12}
split: {num_train_tasks: 30}
model: {heads: 1}
method: {name: decision_transformer, settings: {best_fraction: 0.5}}
evaluation: {policy: {asked_return: 1.0}}
"""


@pytest.fixture
def loaded(tmp_path):
    """loaded(words): the experiment of the file above, and what is said about dropped settings."""
    (tmp_path / "file.yaml").write_text(FILE)

    def load_over(*words: str) -> tuple[Experiment, list[str]]:
        said, path = [], str(tmp_path / "file.yaml")
        words = ["--config_path", path, "--root", str(tmp_path), *words]
        return load_words(*read_words(words), warn=said.append), said

    return load_over


def test_another_source_over_a_file_starts_from_its_own_defaults(loaded):
    own = config("--source.algorithm", "q_learning").source.settings
    experiment, said = loaded("--source.algorithm", "q_learning")
    assert experiment.source.settings == own and experiment.source.env_steps == 4000
    assert len(said) == 1 and all(
        word in said[0] for word in ("source.settings", "line 2", "learning_rate", "discount")
    )
    experiment, said = loaded("--source.algorithm", "q_learning", "--source.settings.bonus", "0.5")
    assert experiment.source.settings == own | {"bonus": 0.5} and len(said) == 1
    with pytest.raises(ConfigError, match=r"source\.settings\.entropy"):
        loaded("--source.algorithm", "q_learning", "--source.settings.entropy", "0.1")


def test_the_component_of_the_file_keeps_the_settings_of_the_file(loaded):
    experiment, said = loaded("--source.algorithm", "a2c", "--source.settings.discount", "0.7")
    settings = experiment.source.settings
    assert (settings["learning_rate"], settings["discount"], said) == (0.002, 0.7, [])


def test_another_method_and_another_world_drop_what_belongs_to_the_old_ones(loaded):
    experiment, said = loaded("--method.name", "dpt", "--env.id", "DarkRoom-9x9-Dense-v1")
    defaults = config("--method.name", "dpt")
    assert experiment.method == defaults.method
    assert experiment.evaluation.policy == defaults.evaluation.policy
    assert experiment.env == config("--env.id", "DarkRoom-9x9-Dense-v1").env
    dropped = ("env.kwargs", "env.episode_length", "method.settings", "evaluation.policy")
    assert sorted(sentence.split()[1] for sentence in said) == sorted(dropped)


@pytest.mark.parametrize(("memory", "heads"), [("xl", 1), ("retrieval", 1), ("gru", 2)])
def test_another_memory_keeps_the_heads_of_the_file_if_it_has_any(loaded, memory, heads):
    words = "--method.name", "algorithm_distillation", "--training.segments", "2"
    experiment, said = loaded("--model.memory", memory, *words[: 4 if memory == "xl" else 2])
    assert experiment.model.heads == heads
    assert any("model.heads" in sentence for sentence in said) == (memory == "gru")


def test_an_override_in_python_drops_them_too(tmp_path):
    (tmp_path / "file.yaml").write_text(FILE)
    overrides = {"root": str(tmp_path), "source.algorithm": "ucb", "env.id": "BernoulliBandit-v0"}
    experiment = load_file(tmp_path / "file.yaml", **overrides)
    assert "learning_rate" not in experiment.source.settings and not experiment.env.kwargs
