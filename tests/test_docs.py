"""The documentation: links that lead somewhere, a world for each section, and a site from disk."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
from browser import MISSING, browser
from processes import ONE_THREAD, ROOT

import envs
from ad.cli import VERBS, exit_code
from ad.errors import ConfigError
from ad.registry import METHODS
from ad.scaffold import KINDS
from scripts.docs import methods, pages, worlds
from scripts.docs.docstrings import as_markdown

HERE = PurePosixPath("configs/study/README.md")
PAGES = {
    HERE: PurePosixPath("configs/study/index.md"),
    PurePosixPath("envs/README.md"): PurePosixPath("envs/index.md"),
}


def test_links_lead_to_pages_to_the_api_and_to_copies(tmp_path):
    text = "[a](../../envs/README.md#definitions) [b](../../envs) [c](../../ad/methods/base.py) "
    text += "[d](../smoke.yaml) [e](#own)\n```\n[f](nowhere.md)\n```\n"
    made = pages.with_links(text, HERE, PAGES, tmp_path)
    assert made == (
        "[a](../../envs/index.md#definitions) [b](../../envs/index.md) [c][ad.methods.base] "
        "[d](../../files/configs/smoke.yaml.txt) [e](#own)\n```\n[f](nowhere.md)\n```\n"
    )
    copy = tmp_path / "files/configs/smoke.yaml.txt"
    assert copy.read_bytes() == (ROOT / "configs/smoke.yaml").read_bytes()


def test_a_link_to_no_file_is_one_sentence(tmp_path):
    sentence = "configs/study/README.md has a link to gone.md, which does not exist"
    with pytest.raises(ConfigError, match=sentence):
        pages.with_links("[a](gone.md)", HERE, PAGES, tmp_path)


def test_names_in_docstrings_become_lists_and_references_links():
    text = "What: `ad.errors`.\n\nsize: cells,\nof a side.\n\nAfter `x`."
    assert as_markdown(text) == (
        "What: [`ad.errors`][ad.errors].\n\n\n- `size`: cells,\n    of a side.\n\nAfter `x`."
    )


def test_the_gallery_has_every_world_with_its_picture_and_its_optimum(tmp_path):
    sections = {text.split("\n")[0]: text for text in worlds.gallery(tmp_path).split("## ") if text}
    assert list(sections) == envs.REGISTRY.names()
    for name, text in sections.items():
        assert f"](pictures/{name}.png)" in text and (tmp_path / f"pictures/{name}.png").exists()
        assert f"| `{name.removesuffix('-v0')}" in text  # a row with the returns
    row = "| DarkRoom-9x9-Dense-v1 | DICP with history filtering | 16.5 | return at the last"
    assert row in sections["DarkRoom-v0"]  # not those of less
    assert "| Thompson sampling | 9.2 | regret |" in sections["GaussianBandit-v0"]


def test_each_method_has_its_equation_and_what_an_action_costs(tmp_path):
    sections = {text.split("\n")[0]: text for text in methods.sections(tmp_path).split("## ")[1:]}
    assert list(sections) == METHODS.names()
    assert all(("```math" in text) == (name != "source") for name, text in sections.items())
    assert all("forward pass" in " ".join(text.split()) for text in sections.values())


def test_train_time_is_compared_in_the_worlds_that_both_have():
    seconds = {"algorithm distillation": {"a": 10.0, "b": 20.0}, "DPT": {"a": 5.0, "c": 9.0}}
    assert "0.5 to 0.5 times that of algorithm distillation in 1 world " in (
        methods.train_time("DPT", seconds)
    )


def commands(kind: str) -> list[str]:
    """Return the commands of the page that adds a kind of component."""
    text = (ROOT / f"scripts/docs/pages/add/{kind}.md").read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return "".join(blocks).replace("\\\n", "").splitlines()


@pytest.fixture
def beside(tmp_path, monkeypatch) -> Path:
    """A folder beside the experiments, in which a test works."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_command(line: str) -> None:
    """Run a command of a verb in this process."""
    _, verb, *words = shlex.split(line)
    if verb in ("run", "collect", "analyze"):
        words += ["--threads", "1", "--device", "cpu"]
    assert exit_code(VERBS[verb], words) == 0


def test_the_commands_of_the_pages_that_add_a_component_work(beside):
    written: set[Path] = set()
    for kind in KINDS:
        before = written
        for line in commands(kind):
            if line.startswith("ad ") and not line.startswith("ad check "):
                run_command(line)
            else:
                assert line.startswith(("ad check ", "python -m pytest "))
        written = {path for path in beside.glob("*/*") if path.parent.name != "configs"}
        names = {path.name for path in written - before}
        assert {f"my_{kind}.py", f"test_my_{kind}.py"} < names  # and what the last command writes
    # The tests that `ad new` wrote, without the checks of contracts.
    tests = [line.split()[-1] for kind in KINDS for line in commands(kind) if "pytest" in line]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "not contract"]
    command += tests
    env = os.environ | ONE_THREAD | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=beside, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow  # a check takes twenty seconds
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "analysis"])
def test_the_component_of_such_a_page_keeps_its_contract(kind, beside):
    write, check, *_ = commands(kind)
    assert check.startswith("ad check ")
    run_command(write), run_command(check)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site; a link or a heading that does not exist is an error of its build."""
    from scripts.docs.__main__ import build

    folder = tmp_path_factory.mktemp("docs") / "site"
    build(folder)
    return folder


@pytest.mark.docs
def test_the_site_has_all_pages_and_names_no_file_of_another_host(site):
    texts = {str(path.relative_to(site)): path.read_text() for path in site.rglob("*.html")}
    assert {"index.html", "concepts.html", "add/method.html", "api/ad.methods.html"} < {*texts}
    assert "<math" in texts["methods.html"]
    loads = r'<(?:script|img|iframe|link rel="stylesheet")[^>]*(?:src|href)="(?:https?:)?//'
    assert not [path for path, text in texts.items() if re.search(loads, text)]


@pytest.mark.docs
@pytest.mark.skipif(bool(MISSING), reason="needs chromium and chromedriver")
def test_the_site_opens_from_disk_with_its_search(site):
    with browser() as window:
        window.open(f"file://{site}/worlds.html")
        assert window.script("return document.images.length") == len(envs.REGISTRY.names())
        window.press("f", *"permutation")  # f is the key of the search
        window.wait("document.querySelectorAll('.md-search-result__item').length > 2")
        loaded = "return performance.getEntriesByType('resource').map(entry => entry.name)"
        assert all(name.startswith("file:") for name in window.script(loaded))
