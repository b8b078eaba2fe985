# SPDX-License-Identifier: GPL-3.0-or-later
"""Generators of the published raw layouts, for places where the data sets cannot be downloaded.

Each module has `generate(directory, count, seed, ...)`, which writes `count` examples in the layout of one data set
(file names, keys, shapes, dtypes) and finally `generator.json` with its settings. An example is a function of (seed,
index) only. Each module's docstring lists what the published set has and the generated one lacks. Generated sets
reproduce structure and physics; results on them are not comparable with results on the published sets.
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
    """The `generate` function of a name in GENERATORS, whose module is imported only now.

    Raises
    ------
    ConfigurationError : an unknown name.
    """
    if name not in GENERATORS:
        raise ConfigurationError("data generate", "name", repr(name), f"one of {', '.join(GENERATORS)}")
    function: Callable[..., None] = import_module(f"{__name__}.{name}").generate
    return function


__all__ = ["GENERATORS", "generator"]
