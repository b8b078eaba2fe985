# SPDX-License-Identifier: GPL-3.0-or-later
"""Generators of the published raw layouts, for places where the data sets themselves cannot be had.

Each module has `generate(directory, count, seed, ...) -> None`: it writes `count` examples in the layout of one data
set (file names, keys, shapes and dtypes) and, last of all, `generator.json`, which says what made them. An example is
a function of (seed, index) alone. What a real set has and these have not is said in each module's docstring: they stand
in for the sets' structure and physics, and figures got with them are no figures of the published sets.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from wavesfm_core.errors import ConfigurationError

GENERATORS: tuple[str, ...] = (
    "cfr_5g",
    "nr_positioning",
    "ntu_fi_har",
    "ntu_fi_humanid",
    "rf_images",
    "rfs_captures",
    "sionna_grids",
)


def generator(name: str) -> Callable[..., None]:
    """The `generate` of a name in GENERATORS; its module, and what that needs, is imported only now.

    Raises ConfigurationError for another name.
    """
    if name not in GENERATORS:
        raise ConfigurationError("data generate", "name", repr(name), f"one of {', '.join(GENERATORS)}")
    function: Callable[..., None] = import_module(f"{__name__}.{name}").generate
    return function


__all__ = ["GENERATORS", "generator"]
