# SPDX-License-Identifier: GPL-3.0-or-later
"""Help texts of options, from the docstrings below the dataclass fields that they set."""

from __future__ import annotations

import ast
from functools import cache
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]


def field_help(module: str, cls: str, field: str, before: str = "") -> str:
    """First paragraph of a field's docstring.

    The source is parsed and not imported, since most of these modules import torch, which takes seconds.

    Parameters
    ----------
    module : below this package, for example "training.loop_args".
    cls, field : of the dataclass.
    before : text that precedes it.

    Raises
    ------
    KeyError : the field has no docstring.
    """
    return f"{before}{_documented(module, cls)[field]}"


@cache
def _documented(module: str, cls: str) -> dict[str, str]:
    """Docstring of every documented field."""
    tree = ast.parse(ROOT.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8"))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == cls)
    found = {}
    for node, after in pairwise(body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(after, ast.Expr):
            text = ast.literal_eval(after.value)
            found[node.target.id] = " ".join(text.split("\n\n")[0].split())
    return found
