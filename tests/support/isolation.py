# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs Python with chosen packages blocked, so that a test sees what a machine without them would see."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

# The finder is first on the meta path, so that an installed package is refused like a missing one.
PREAMBLE = """
import sys
blocked = set({blocked!r})
class Blocker:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)
sys.meta_path.insert(0, Blocker)
"""

IMPORT_ALL = """
import importlib, json, pkgutil
def modules(name):
    package = importlib.import_module(name)
    yield name
    for info in pkgutil.iter_modules(getattr(package, "__path__", []), name + "."):
        if info.name in skipped or info.name.endswith(".__main__"):
            continue
        if info.ispkg:
            yield from modules(info.name)
        else:
            importlib.import_module(info.name)
            yield info.name
print("\\n" + json.dumps(list(modules(package))))
"""


def run_blocked(code: str, blocked: Iterable[str], directory: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter, in `directory`, where importing any of the blocked top-level packages fails."""
    program = PREAMBLE.format(blocked=sorted(blocked)) + code
    command = [sys.executable, "-c", program]
    return subprocess.run(command, check=False, cwd=directory, capture_output=True, text=True, timeout=300)


def import_all(package: str, blocked: Iterable[str], directory: Path, skipped: Iterable[str] = ()) -> set[str]:
    """Import every module of a package with others blocked; names of those imported. Fails with the traceback."""
    code = f"package = {package!r}\nskipped = set({sorted(skipped)!r})\n" + IMPORT_ALL
    done = run_blocked(code, blocked, directory)
    assert done.returncode == 0, f"importing {package} without {', '.join(sorted(blocked))}:\n{done.stderr}"
    return set(json.loads(done.stdout.splitlines()[-1]))


def modules_on_disk(directory: Path, package: str) -> set[str]:
    """Dotted names of all modules of a source tree, as they should be importable under `package`."""
    found = set()
    for path in directory.rglob("*.py"):
        parts = path.relative_to(directory).with_suffix("").parts
        if parts[-1] == "__main__" or any(part.startswith("qa_") for part in parts):
            continue
        found.add(".".join((package, *(part for part in parts if part != "__init__"))))
    return found
