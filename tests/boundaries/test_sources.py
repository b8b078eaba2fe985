# SPDX-License-Identifier: GPL-3.0-or-later
"""What no source file of the project may contain."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("python", "trainer", "apps", "examples", "tests", "scripts")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if path != Path(__file__))
LICENCE = "SPDX-License-Identifier: GPL-3.0-or-later"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.md")])
DOCUMENTS.remove(ROOT / "MANIFEST.md")  # has a format that CGRAN defines
CARDS = sorted((ROOT / "models").glob("*/README.md"))  # generated, one paragraph a line
LINE = 120
CODE_BLOCK = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"`[^`]+`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
ONLY_A_LINK = re.compile(r"^\W*\[[^\]]*\]\([^)]*\)\W*$|^\W*https?://\S+$")
UNPICKLING = re.compile(
    r"allow_pickle\s*=\s*True|weights_only\s*=\s*False|\bpickle\.(load|Unpickler)|\bjoblib\.load"
    r"|^\s*(import|from) (c?pickle|dill|joblib)\b",
    re.MULTILINE,
)


@pytest.mark.parametrize(
    "line",
    ["np.load(f, allow_pickle=True)", "torch.load(f, weights_only = False)", "x = pickle.loads(b)", "import pickle"],
)
def test_the_pattern_finds(line: str) -> None:
    assert UNPICKLING.search(line)


@pytest.mark.parametrize(
    "line", ["np.load(f, allow_pickle=False)", "torch.load(f, weights_only=True)", "# no pickle here"]
)
def test_the_pattern_lets_pass(line: str) -> None:
    assert not UNPICKLING.search(line)


def test_nothing_unpickles() -> None:
    assert len(SOURCES) > 10
    found = {str(path.relative_to(ROOT)): m.group() for path in SOURCES if (m := UNPICKLING.search(path.read_text()))}
    assert found == {}


def test_torch_load_says_weights_only() -> None:
    """torch.load without the argument depends on torch's version for its safety."""
    calls = re.compile(r"\btorch\.load\((?!.*weights_only=True)")
    found = [str(path.relative_to(ROOT)) for path in SOURCES if calls.search(path.read_text())]
    assert found == []


@pytest.mark.parametrize("folder", ["python", "trainer"])
def test_libraries_do_not_print(folder: str) -> None:
    """The commands write through rich's console; everything else logs."""
    printing = re.compile(r"^\s*print\(", re.MULTILINE)
    found = [str(p.relative_to(ROOT)) for p in (ROOT / folder).rglob("*.py") if printing.search(p.read_text())]
    assert found == []


def test_every_source_file_names_its_licence() -> None:
    kinds = {".py", ".cc", ".h", ".yml", ".yaml", ".sh", ".cmake", ".txt"}
    folders = (*FOLDERS, "lib", "grc", "cmake")
    files = [p for f in folders for p in (ROOT / f).rglob("*") if p.suffix in kinds and "__pycache__" not in p.parts]
    sources = [p for p in files if p.suffix != ".txt" or p.name == "CMakeLists.txt"]
    assert len(sources) > 200
    assert [str(p.relative_to(ROOT)) for p in sources if LICENCE not in "".join(p.open().readlines()[:3])] == []


def test_no_drawer_modules() -> None:
    names = {"utils.py", "common.py", "helpers.py"}
    assert [
        str(p.relative_to(ROOT)) for f in ("python", "trainer") for p in (ROOT / f).rglob("*.py") if p.name in names
    ] == []


def long_lines(text: str) -> list[int]:
    """Numbers of the lines of a document that are too long and neither table, code block, nor only a link."""
    prose = CODE_BLOCK.sub(lambda block: "\n" * block[0].count("\n"), text)
    return [
        number
        for number, line in enumerate(prose.split("\n"), 1)
        if len(line) > LINE and not line.lstrip().startswith("|") and not ONLY_A_LINK.match(line)
    ]


def anchors(text: str) -> set[str]:
    """Anchors that GitHub gives to the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", CODE_BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(document: Path) -> list[str]:
    """Relative links of a document to files or headings that do not exist."""
    broken = []
    for link in LINK.findall(INLINE_CODE.sub("", CODE_BLOCK.sub("", document.read_text(encoding="utf-8")))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    return broken


def test_long_lines_are_found_outside_of_tables_code_and_links() -> None:
    long = "word " * LINE
    text = f"{long}\n| {long} |\n```sh\n{long}\n```\n[a](https://{'x' * LINE})\n{long}\n- {long}"
    assert long_lines(text) == [1, 7, 8]


def test_broken_links_are_found(tmp_path: Path) -> None:
    document = tmp_path / "a.md"
    links = ["a.md", "#a-heading-2", "https://x.org/y", "b.md", "a.md#none", "#none"]
    document.write_text("# A heading: 2\n" + "".join(f"[x]({link})\n" for link in links) + "```\n[x](c.md)\n```\n")
    assert broken_links(document) == ["b.md", "a.md#none", "#none"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_lines_of_documents_are_short(document: Path) -> None:
    assert long_lines(document.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("document", [*DOCUMENTS, *CARDS], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_documents_lead_somewhere(document: Path) -> None:
    assert broken_links(document) == []
