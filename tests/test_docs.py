# SPDX-License-Identifier: Apache-2.0
"""The pages are true: their code runs, their links and paths exist, their tables are the code's."""

import re
from pathlib import Path

import pytest
import torch

import pushforward as pf

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
IDS = [page.name for page in PAGES]


def python_blocks(text):
    """The ```python blocks of a page, each with the number of its first line."""
    for match in re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S):
        yield text.count("\n", 0, match.start(1)) + 1, match.group(1)


@pytest.fixture
def torch_state(restore_threads):
    yield
    torch.set_flush_denormal(False)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
@pytest.mark.usefixtures("torch_state")
def test_code_of_the_page_runs(page, monkeypatch, tmp_path):
    # The blocks of a page share a namespace, as a reader would type them one after the other.
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    namespace = {"__name__": page.stem}
    with torch.random.fork_rng(devices=[]):
        for line, source in python_blocks(text):
            padded = "\n" * (line - 1) + source  # so that a traceback names the page's own line
            exec(compile(padded, str(page), "exec"), namespace)


def test_the_pages_have_code():
    # Guards the pattern: were it wrong, the test above would pass on nothing.
    counts = {page.name: len(list(python_blocks(page.read_text("utf-8")))) for page in PAGES}
    for name in ("numerics.md", "noise.md", "conventions.md"):
        assert counts[name] >= 3, name
    opened = {page.name: len(re.findall(r"^```python", page.read_text("utf-8"), re.M))
              for page in PAGES}  # fmt: skip
    assert opened == counts


def without_code(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def anchors(page):
    """The anchors of a page's headings, as the usual renderers make them."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text("utf-8")), re.M)
    plain = [re.sub(r"[`*_]", "", h).strip().lower() for h in headings]
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", h)) for h in plain}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_relative_links_lead_somewhere(page):
    text = without_code(page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        assert file.is_relative_to(ROOT), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(file), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_named_files_exist(page):
    text = without_code(page.read_text(encoding="utf-8"))
    folders = "csrc|python|tests|tools|docs|benchmarks|examples"
    for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", text):
        assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_purposes_of_the_noise_page_are_the_table():
    text = (ROOT / "docs" / "noise.md").read_text(encoding="utf-8")
    section = text.partition("## Purposes")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \| (\d+) \|", section, re.M)
    assert {name: int(code) for name, code in rows} == dict(pf.random.PURPOSES)
