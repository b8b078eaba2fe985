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
