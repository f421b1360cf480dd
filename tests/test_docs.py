"""The documentation: links that lead somewhere, a world for each section, and a site from disk."""

from pathlib import PurePosixPath

import pytest
from browser import MISSING, browser
from processes import ROOT

import envs
from ad.errors import ConfigError
from ad.registry import METHODS
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


@pytest.mark.docs
@pytest.mark.skipif(bool(MISSING), reason="needs chromium and chromedriver")
def test_the_site_opens_from_disk_with_its_search(tmp_path):
    from scripts.docs.__main__ import build

    build(tmp_path / "site")  # raises for a link or a heading that does not exist
    with browser() as window:
        window.open(f"file://{tmp_path}/site/worlds.html")
        assert window.script("return document.images.length") == len(envs.REGISTRY.names())
        window.press("f", *"permutation")  # f is the key of the search
        window.wait("document.querySelectorAll('.md-search-result__item').length > 2")
        loaded = "return performance.getEntriesByType('resource').map(entry => entry.name)"
        assert all(name.startswith("file:") for name in window.script(loaded))
