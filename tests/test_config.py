"""The configuration: good YAML loads, and bad YAML is refused with a sentence for each problem."""

import dataclasses
import os
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

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
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


def first_words(parameter: object) -> str:
    """Return the first printable characters of a parameter, as the id of a test."""
    return "".join(character for character in str(parameter)[:30] if character.isprintable())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_experiment_loads_and_is_named_after_its_file(path):
    assert config("--config_path", str(path)).name == path.stem


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
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
    quickstart = config("--config_path", str(CONFIGS[0].with_name("quickstart.yaml")))
    assert diff(config(), quickstart) == {"evaluation.temperature_known": 0.4}


def test_an_empty_file_and_an_empty_section_mean_the_defaults(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    (tmp_path / "section.yaml").write_text("training:\n")
    assert config("--config_path", str(tmp_path / "empty.yaml")) == config()
    assert config("--config_path", str(tmp_path / "section.yaml")) == config()


def test_an_option_goes_before_the_file_and_the_last_of_two_counts(tmp_path):
    (tmp_path / "file.yaml").write_text("training: {steps: 300, batch_size: 4}")
    words = ["--config_path", str(tmp_path / "file.yaml"), "--training.steps=400"]
    training = config(*words, "--training.steps", "500").training
    assert (training.steps, training.batch_size) == (500, 4)


def test_options_reach_into_the_settings_of_the_world_and_the_algorithm():
    experiment = config("--env.kwargs.size", "7", "--split.num_train_tasks", "40",
                 "--source.settings.learning_rate", "1e-3")  # fmt: skip
    assert experiment.env.kwargs == {"size": 7}
    assert experiment.source.settings["learning_rate"] == 0.001


def test_the_help_is_made_without_torch():
    code = (
        "import sys; from ad.cli import VERBS;"
        "VERBS['run'](['--help', 'all']); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_an_option_can_be_a_list():
    assert config("--split.held_out", "[[0, 0], [8, 8]]").split.held_out == [[0, 0], [8, 8]]


def test_overrides_replace_what_a_file_sets(tmp_path):
    (tmp_path / "file.yaml").write_text("training: {steps: 300, batch_size: 4}")
    overrides = {"training.steps": 500, "env.kwargs.size": 7, "split.num_train_tasks": 40}
    experiment = load_file(tmp_path / "file.yaml", root=str(tmp_path), **overrides)
    assert (experiment.training.steps, experiment.training.batch_size) == (500, 4)
    assert (experiment.root, experiment.env.kwargs) == (str(tmp_path), {"size": 7})


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


BAD_WORDS = [
    # unknown settings
    ("--training.stps 3", "training.stps (command line) is not a setting; did you mean steps?"),
    ("--steps 3", "--steps is not an option; did you mean --training.steps?"),
    ("--trainng.steps 3", "--trainng.steps is not an option; did you mean --training?"),
    ("--source.settings.discont 1", "source.settings.discont (command line) is not a setting; "
     "did you mean discount?"),
    ("--env.kwargs.szie 3", "env (command line) cannot be created: DarkRoom-v0 has no setting "
     "'szie'; did you mean size?"),
    ("--data.zzz 3", "(known: history_stride, context_length, env_steps, held_out_act"),
    # wrong types
    ("--training.steps 2.7", "training.steps (command line) must be a whole number, not 2.7"),
    ("--training.steps true", "training.steps (command line) must be a whole number, not true"),
    ("--training.compile maybe", "must be true or false, not 'maybe'"),
    ("--training.compile 1", "must be true or false, not 1"),
    ("--training.learning_rate fast", "must be a number, not 'fast'"),
    ("--training.learning_rate .nan", "must be written in base 10 and be finite, not .nan"),
    ("--training.learning_rate 1e999", "is too large a number: 1e999"),
    ("--training.steps 0x10", "must be written in base 10 and be finite, not 0x10"),
    ("--training.steps 1:30", "must be written in base 10 and be finite, not 1:30"),
    ("--training.train_seed 9223372036854775808", "is too large a number: 9223372036854775808"),
    ("--training.steps=", "must be a whole number, not ''"),
    ("--training 5", "training (command line) must be a group of settings (key: value), not 5"),
    ("--env.kwargs [1]", "must be a group of settings (key: value), not [1]"),
    ("--split.held_out [[1,x]]", "must be a list whose entries are each a list whose entries "
     "are each a whole number or null, not [[1, 'x']]"),
    ("--source.settings.hidden 2.5", "source.settings.hidden (command line) must be a whole "),
    # out of range
    ("--training.steps 0", "must be at least 1, not 0"),
    ("--training.learning_rate 0", "must be above 0, not 0"),
    ("--model.dropout 1.0", "must be below 1, not 1.0"),
    ("--data.windows_from_start 1.5", "must be at most 1, not 1.5"),
    ("--method.settings.action_dropout 1.0", "must be below 1, not 1.0"),
    (
        "--source.settings.discount 3",
        "source.settings.discount (command line) must be at most 1, not 3",
    ),
    ("--name ../x", "must be a plain folder name (letters, digits, '.', '_', '-'; "
     "a letter or digit first; at most 100), not '../x'"),
    ("--name=-x", "must be a plain folder name"),
    ("--root /no/such/folder", "must be an existing folder, not '/no/such/folder'"),
    # unknown components
    ("--env.id DarkRom-v0", "cannot be created: unknown environment 'DarkRom-v0'; did you mean "
     "DarkRoom-v0?"),
    ("--source.algorithm a3c", "is not a known source algorithm: 'a3c'; did you mean a2c?"),
    ("--source.algorithm noise_distillation --source.settings.hold 0.5", "source.settings.hold "
     "(command line) must be at least 1, not 0.5"),
    ("--source.algorithm q_learning --source.settings.epsilon_end 2", "must be at most 1, not 2"),
    ("--method.name nothing", "is not a known method: 'nothing' (known: algorithm_dist"),
    ("--model.encoder tabel", "is not a known observation encoder: 'tabel'; did you mean tab"),
    # combinations
    ("--model.heads 3", "model.heads (command line) must divide model.width (64), not be 3"),
    ("--training.warmup_steps 2000", "must be at most training.steps (1000), not 2000"),
    ("--training.warmup_steps 3000 --training.schedule_steps 2000", "must be at most "
     "training.schedule_steps (2000), not 3000"),
    ("--training.micro_batches 64", "must be at most training.batch_size (32), not 64"),
    ("--training.final_learning_rate 1", "must be at most training.learning_rate (0.003), not"),
    ("--source.env_steps 199999", "must be a multiple of source.num_envs (10), not 199999"),
    ("--data.history_stride 20001", "must be at most 20000, the transitions of an actor (source"),
    ('--evaluation.worlds [{"size":11}]', "evaluation.worlds (command line) must not list {'size': "
     "11}: model.encoder factored is for the 9 x 9 observations of training, not for 11 x 11 "
     "(offsets is for any size)"),
    ('--model.encoder table --evaluation.worlds [{"size":7}]', "model.encoder table is for "),
    ('--evaluation.worlds [{"szie":7}]', "must not list {'szie': 7}: DarkRoom-v0 has no setting "),
    ('--evaluation.worlds [{"num_envs":7}]', "must not set num_envs: the suite sets it"),
    ('--evaluation.worlds [{"size":9},{"size":9}]', "must not list {'size': 9} twice"),
    ("--evaluation.worlds [11]", "must be a list whose entries are each a group of settings"),
    ("--data.env_steps 200010", "must be at most source.env_steps (200000), not 200010"),
    ("--data.env_steps 100001", "must be a multiple of source.num_envs (10), not 100001"),
    ("--source.env_steps 190", "must be at least 200, an episode of env.episode_length (20) for "
     "each of source.num_envs (10) actors, not 190"),
    ("--data.env_steps 190", "data.env_steps (command line) must be at least 200, an episode of"),
    ("--data.env_steps 390", "data.history_stride must be at most 39, the transitions of an a"),
    ("--data.actors_per_task 10", "must be at most 9, not 10: source.num_envs is 10, and data.h"),
    ("--model.position rotari", "is not a known position embedding: 'rotari'; did you mean rot"),
    ("--model.position rotary --model.width 6", "must not be rotary with heads of width 3"),
    ("--model.position window --model.positions 63", "model.positions (command line) must be at "
     "least 64, the length of a window of data.context_length, not 63"),
    ("--model.position history --model.positions 1999", "must be at least 2000, the length of a "
     "rollout of 100 episodes of 20 steps, not 1999"),
    ("--model.position history --data.history_stride 5", "must be at least 4000, the length of a "
     "training sequence, not 2000"),
    ("--model.reward_token before", "must be after with model.tokenizer fused: before is for"),
    ("--data.held_out_actors 10", "must be below source.num_envs (10), not 10"),
    ("--env.kwargs.num_envs 3", "env.kwargs (command line) must not set num_envs: the suite "),
    ("--env.kwargs.size 3", "split is not possible: num_train_tasks is 57, but there are 8"),
    ("--split.num_train_tasks 80", "is not possible: num_train_tasks is 80: no task is left"),
    ("--split.held_out [[9,9]]", "held-out task [9, 9] is not a task of this world"),
    # words
    ("--training.steps", "--training.steps needs a value"),
    ("--training.steps --fresh true", "--training.steps needs a value"),
    ("quickstart.yaml", "'quickstart.yaml' is not an option: write --section.field value"),
    ("--split.held_out [[1,2]", "split.held_out (command line) is not YAML: expected ',' or"),
    ("--config_path configs/quikstart.yaml", "there is no file configs/quikstart.yaml; did you "
     "mean quickstart?"),
    ("--config_path /", "/ cannot be read: Is a directory"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "sentence"), BAD_WORDS, ids=first_words)
def test_a_bad_command_line_gets_its_sentence(words, sentence):
    assert sentence in message(*words.split(" ", 3))


BAD_FILES = [
    ("training:\n  stps: 3", "training.stps (file.yaml, line 2) is not a setting; did you mean"),
    ("name: no", "name (file.yaml, line 1) must be text, not false (in quotes it is text)"),
    ("name: 2024", "must be text, not 2024 (in quotes it is text)"),
    ("name: 2024-08-01", "name (file.yaml, line 1) has a value of the unsupported type"),
    ("training:\n  steps: 1\n  steps: 2", "training.steps (file.yaml, line 2) is set twice"),
    ("training: {1: 2}", "training.1 is not a plain text key (in quotes it is)"),
    ("[1, 2]", "file.yaml must be a group of settings (key: value), not [1, 2]"),
    ("just words", "file.yaml must be a group of settings (key: value), not 'just words'"),
    ("null", "file.yaml must be a group of settings (key: value), not null"),
    ("env: &a {id: x}\nsplit: *a", "file.yaml is not YAML: an alias (*name) is not allowed "
     "(line 2, column 8)"),
    ("env: &a {kwargs: *a}", "an alias (*name) is not allowed"),
    ("env: !!python/object/apply:os.system ['true']", "has a value of the unsupported type"),
    ("name: !!int x", "name (file.yaml, line 1) has a value that cannot be read: 'x'"),
    ("training: {steps: [}", "file.yaml is not YAML: "),
    ("a: 1\n---\nb: 2", "file.yaml is not YAML: but found another document"),
    ("x: " + "[" * 5000, "file.yaml is nested too deeply"),
    ("x: " + "a" * 1_000_000, "file.yaml is larger than 1000000 bytes"),
    ("name: \x00", "file.yaml is not YAML: unacceptable character"),
    (b"name: \xff\xfe", "file.yaml is not a text file (UTF-8)"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "sentence"), BAD_FILES, ids=first_words)
def test_a_bad_file_gets_its_sentence(text, sentence, tmp_path):
    assert sentence in message_about(text, tmp_path)


def test_all_problems_come_in_one_message(tmp_path):
    text = "name: 3\ntraining: {stps: 5, steps: 2.5}\nmodel: {heads: 3}\nenv: {id: Dark}"
    lines = message_about(text, tmp_path).splitlines()
    assert lines[0] == "5 problems, nothing was written:"
    assert [line.split()[0] for line in lines[1:]] == [
        "name", "training.stps", "training.steps", "env", "model.heads"
    ]  # fmt: skip


def test_a_constraint_is_silent_while_one_of_its_settings_is_wrong():
    assert message("--model.heads", "x").count("model.heads") == 1


def test_a_refused_configuration_leaves_no_trace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message("--training.steps", "0", "--name", "x")
    assert os.listdir(tmp_path) == []


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


def test_an_override_in_python_drops_them_too(tmp_path):
    (tmp_path / "file.yaml").write_text(FILE)
    overrides = {"root": str(tmp_path), "source.algorithm": "ucb", "env.id": "BernoulliBandit-v0"}
    experiment = load_file(tmp_path / "file.yaml", **overrides)
    assert "learning_rate" not in experiment.source.settings and not experiment.env.kwargs
