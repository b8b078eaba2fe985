# SPDX-License-Identifier: GPL-3.0-or-later
"""A channel estimator that starts as LMMSE and corrects its Wiener gains with the WavesFM encoder.

LMMSE weights each mode of the Kronecker covariance by its average power. The geometry of one slot is sharper than the
average and shows in which modes are strong together. The encoder sees the modes of one slot and returns, for each, a
correction of the gain and an additive term. Its last layer starts at zero, where the model equals LMMSE in space, time
and frequency at the measured signal-to-noise ratio.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from wavesfm_core.bundle.covariance import Covariances
from wavesfm_core.bundle.ofdm_spec import OFDMSpec
from wavesfm_core.bundle.pilot_grid_spec import PilotGridSpec
from wavesfm_core.bundle.spec import HeadSpec, to_dict
from wavesfm_core.channel.estimators import CUT
from wavesfm_core.checks import require_rules
from wavesfm_core.errors import ConfigurationError

from .parameters import parameter_groups
from .step_random import StepRandom, set_step_random
from .vit import Encoder, EncoderArgs

LEAST_POWER = 1e-12  # floor of a mode's power, so that its logarithm is finite
EMBEDDED_DB = (-20.0, 40.0)  # range of the SNR that the encoder sees; the Wiener gains use the unclipped value
LOG_POWER_SCALE, LOG_POWER_FLOOR = 0.3, 1e-3


@dataclass(frozen=True)
class ModeArgs:
    """Input and output of the encoder for the modes of a slot.

    Raises
    ------
    ConfigurationError : a value outside its range; the error names the field.
    """

    frequency_modes: int = 16
    """Strongest modes over the subcarriers that the encoder sees, at most the pilots of a pilot symbol. The other modes
    keep their Wiener gains.
    """
    patch: int = 4
    """Side of a patch; rows are modes of the antennas, columns modes of the subcarriers."""
    additive: bool = True
    """Predict a complex additive term for each mode beside the correction of its gain."""
    log_power: bool = True
    """Feed the logarithm of each mode's power beside its real and imaginary part."""

    def __post_init__(self) -> None:
        rules = {
            "frequency_modes": (1 <= self.frequency_modes <= 4096, "1 to 4096"),
            "patch": (1 <= self.patch <= 128, "1 to 128"),
        }
        require_rules("ModeArgs", self, rules)


def encoder_for(args: ModeArgs, spec: OFDMSpec, options: EncoderArgs) -> EncoderArgs:
    """Encoder arguments for the modes of a numerology.

    Parameters
    ----------
    args : modes that the encoder sees.
    spec : OFDM slot parameters.
    options : encoder arguments; channels, image and patch are replaced.

    Raises
    ------
    ConfigurationError : an option that the modes determine, or that has no meaning here, differs from its default; or
        more modes than pilots.
    """
    defaults = EncoderArgs()
    for name in ("channels", "image", "patch", "rate_input", "film", "positions"):
        if getattr(options, name) != getattr(defaults, name):
            expected = "no value: the modes of the slots determine it"
            raise ConfigurationError("model", name, getattr(options, name), expected)
    if args.frequency_modes > spec.pilots.shape[1]:
        expected = f"at most {spec.pilots.shape[1]}, the pilots of a symbol"
        raise ConfigurationError("ModeArgs", "frequency_modes", args.frequency_modes, expected)
    rows, columns = (-(-n // args.patch) for n in (spec.antennas, args.frequency_modes))
    channels = len(spec.pilot_symbols) * (3 if args.log_power else 2)
    return replace(options, channels=(channels,), image=max(rows, columns) * args.patch, patch=args.patch)


class ChannelModel(nn.Module):
    """Channel of a slot from its least-squares estimate at the pilots.

    The tile is the least-squares estimate divided by the square root of its mean power (layout "least_squares" of
    core's PilotGridSpec); the channel has the same scale. All arithmetic is real float32, except the encoder under
    autocast. The constants are zero until `of` or a weights file sets them. They are stored with the weights:
    eigenvectors are defined up to a phase only, and the encoder has learnt these.

    Parameters
    ----------
    args : modes that the encoder sees.
    spec : OFDM slot parameters.
    encoder_args : from `encoder_for`.
    held : modes over the subcarriers, whether the encoder sees them or not; frequency_modes to the pilots of a symbol.

    Raises
    ------
    ConfigurationError : arguments that contradict each other.
    """

    def __init__(self, args: ModeArgs, spec: OFDMSpec, encoder_args: EncoderArgs, held: int) -> None:
        super().__init__()
        defaults = {name: getattr(EncoderArgs(), name) for name in ("channels", "image", "patch")}
        if encoder_for(args, spec, replace(encoder_args, **defaults)) != encoder_args:
            found = f"{encoder_args.channels} x {encoder_args.image}, patches of {encoder_args.patch}"
            raise ConfigurationError("ChannelModel", "encoder", found, "the result of encoder_for with these modes")
        if not args.frequency_modes <= held <= spec.pilots.shape[1]:
            raise ConfigurationError("ChannelModel", "held", held, "frequency_modes to the pilots of a symbol")
        self.args, self.spec, self.encoder_args, self.held = args, spec, encoder_args, held
        self.step_random: StepRandom | None = None
        self.encoder = Encoder(encoder_args)
        width = encoder_args.encoder.width
        self.snr = nn.Sequential(nn.Linear(2, width), nn.GELU(), nn.Linear(width, width))
        n_times = len(spec.pilot_symbols)
        self.head = nn.Linear(width, args.patch**2 * n_times * (3 if args.additive else 1))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        for name, shape in self._constants().items():
            self.register_buffer(name, torch.zeros(shape))
        side, rows, columns = encoder_args.side, *self._patches()
        seen = (np.arange(rows)[:, None] * side + np.arange(columns)).ravel()
        self.register_buffer("seen", torch.from_numpy(seen), persistent=False)  # never on the meta device

    def _constants(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the constants; a complex matrix is stored as a real one of twice the size."""
        antennas, symbols, subcarriers = self.spec.grid_shape
        times, pilots = self.spec.pilots.shape
        held = self.held
        return {
            "to_frequency_modes": (2 * pilots, 2 * held),
            "to_modes": (2 * antennas * times, 2 * antennas * times),
            "powers": (antennas, times, held),
            "spread_powers": (antennas, times, held),
            "to_antennas": (2 * antennas * times, 2 * antennas * times),
            "to_subcarriers": (2 * held, 2 * subcarriers),
            "to_symbols": (2 * symbols, 2 * times),
            "covariance_space": (antennas, antennas, 2),
            "covariance_time": (symbols, symbols, 2),
            "covariance_frequency": (subcarriers, subcarriers, 2),
        }

    def _patches(self) -> tuple[int, int]:
        """Rows and columns of patches that contain modes."""
        patch = self.args.patch
        return -(-self.spec.antennas // patch), -(-self.args.frequency_modes // patch)

    @classmethod
    def of(cls, args: ModeArgs, spec: OFDMSpec, options: EncoderArgs, covariances: Covariances) -> ChannelModel:
        """A new model for channels of known covariances.

        Parameters
        ----------
        args : modes that the encoder sees.
        spec : OFDM slot parameters.
        options : encoder arguments, see `encoder_for`.
        covariances : of the channels, in space, time and frequency.

        Raises
        ------
        ConfigurationError : arguments that contradict each other.
        InputError : covariances of another size.
        """
        covariances.require(spec)
        encoder_args = encoder_for(args, spec, options)
        space = _Modes.of(covariances.space, np.arange(spec.antennas))
        time = _Modes.of(covariances.time, np.array(spec.pilot_symbols))
        frequency = _Modes.of(covariances.frequency, spec.pilot_subcarriers)
        held = max(frequency.held, args.frequency_modes)
        model = cls(args, spec, encoder_args, held)
        model._set_constants(space, time, frequency.first(held), covariances)
        return model

    @torch.no_grad()
    def _set_constants(self, space: _Modes, time: _Modes, frequency: _Modes, covariances: Covariances) -> None:
        """Fill the constants from the modes."""
        together = np.kron(space.vectors, time.vectors).conj().T
        powers = np.multiply.outer(np.multiply.outer(space.powers, time.powers), frequency.powers)
        spread = [np.sum(np.abs(modes.spread) ** 2, axis=0) for modes in (space, time, frequency)]
        values = {
            "to_frequency_modes": _from_left(frequency.vectors.conj().T).T,
            "to_modes": _from_left(together),
            "powers": np.maximum(powers, LEAST_POWER),
            "spread_powers": np.multiply.outer(np.multiply.outer(spread[0], spread[1]), spread[2])
            / math.prod(self.spec.grid_shape),
            "to_antennas": _from_left(np.kron(space.spread, np.eye(len(time.powers)))),
            "to_subcarriers": _from_left(frequency.spread).T,
            "to_symbols": _from_left(time.spread),
        }
        for name in ("space", "time", "frequency"):
            values[f"covariance_{name}"] = np.stack(_parts(getattr(covariances, name)), axis=-1)
        for name, value in values.items():
            getattr(self, name).copy_(torch.from_numpy(np.ascontiguousarray(value)))

    def covariances(self) -> Covariances:
        """The covariances from which the constants were computed, in float32."""
        names = ("space", "time", "frequency")
        return Covariances(*(torch.view_as_complex(getattr(self, f"covariance_{n}").cpu()).numpy() for n in names))

    @property
    def preprocess(self) -> PilotGridSpec:
        """Preprocessing of a grid into the tile."""
        return PilotGridSpec(self.spec, "least_squares")

    @property
    def task_head(self) -> HeadSpec:
        """Meaning of the output."""
        return HeadSpec("channel", grid=self.spec.grid_shape)

    def set_step_random(self, step_random: StepRandom | None) -> None:
        """Set the source of stochastic depth for a training step."""
        set_step_random(self, step_random)

    def forward(self, tile: Tensor, snr_db: Tensor) -> Tensor:
        """Channel estimates of a batch.

        Parameters
        ----------
        tile : float32 [B, 2 P, A, Fp], the scaled least-squares estimate at the pilots; real, imaginary part of each
            pilot symbol.
        snr_db : float32 [B, 1], measured by core's `observe`.

        Returns
        -------
        float32 [B, 2, A, S * F], real and imaginary part, symbol after symbol.
        """
        return self.synthesise(self.coefficients(tile, snr_db))

    def coefficients(self, tile: Tensor, snr_db: Tensor) -> Tensor:
        """Estimated modes [B, 2, A, P, held] of the channel at the pilots, in the tile's scale."""
        noise = torch.exp(snr_db.float() * (-math.log(10) / 10))[:, :, None, None, None]  # over the signal's power
        unit = (1 + noise).sqrt()  # the tile's mean power is that of signal and noise
        return self._estimate(self.analyse(tile) * unit, snr_db.float(), noise) / unit

    def analyse(self, tile: Tensor) -> Tensor:
        """Modes [B, 2, A, P, held] of a tile [B, 2 P, A, Fp].

        The transform is unitary except for discarded modes, which no channel excites.
        """
        antennas, times = self.spec.antennas, len(self.spec.pilot_symbols)
        batch, pilots = tile.shape[0], tile.shape[3]
        with _exact(tile):
            x = tile.float().reshape(batch, times, 2, antennas, pilots).permute(0, 3, 1, 2, 4)
            x = x.reshape(batch, antennas * times, 2 * pilots) @ self.to_frequency_modes
            x = x.reshape(batch, antennas * times, 2, self.held).transpose(1, 2)
            x = self.to_modes @ x.reshape(batch, 2 * antennas * times, self.held)
        return x.reshape(batch, 2, antennas, times, self.held)

    def synthesise(self, modes: Tensor) -> Tensor:
        """Channel [B, 2, A, S * F] from its modes at the pilots [B, 2, A, P, held]."""
        antennas, symbols, subcarriers = self.spec.grid_shape
        batch, times = modes.shape[0], len(self.spec.pilot_symbols)
        with _exact(modes):
            x = self.to_antennas @ modes.reshape(batch, 2 * antennas * times, self.held)
            x = x.reshape(batch, 2, antennas * times, self.held).transpose(1, 2)
            x = x.reshape(batch, antennas * times, 2 * self.held) @ self.to_subcarriers
            x = x.reshape(batch, antennas, times, 2, subcarriers).transpose(2, 3)
            x = self.to_symbols @ x.reshape(batch, antennas, 2 * times, subcarriers)
        x = x.reshape(batch, antennas, 2, symbols * subcarriers)
        return x.transpose(1, 2)

    def linear_error(self, noise: Tensor) -> Tensor:
        """Mean squared error of LMMSE relative to the channel's power.

        It excludes the interpolation error between pilots, which every linear estimator has.

        Parameters
        ----------
        noise : [B], noise power relative to the channel's power.

        Returns
        -------
        [B].
        """
        noise = noise[:, None, None, None]
        return (self.spread_powers * self.powers * noise / (self.powers + noise)).sum(dim=(1, 2, 3))

    def _estimate(self, modes: Tensor, snr_db: Tensor, noise: Tensor) -> Tensor:
        """Modes of the channel from modes of channel and noise, both in units of the signal's mean power."""
        correction = self._encode(modes / (self.powers + noise).sqrt(), snr_db)
        gain = torch.sigmoid(self.powers.log() - noise.log() + correction[:, :1])
        estimate = modes * gain
        if self.args.additive:
            estimate = estimate + correction[:, 1:] * (self.powers * noise / (self.powers + noise)).sqrt()
        return estimate

    def _encode(self, whitened: Tensor, snr_db: Tensor) -> Tensor:
        """Encoder output [B, 1 or 3, A, P, held] for modes of unit mean power; 0 for modes that it does not see."""
        encoder, shown = self.encoder, self.args.frequency_modes
        patches = encoder.patchify(self._picture(whitened[..., :shown]))
        keep = None
        if len(self.seen) < self.encoder_args.n_patches:
            keep = self.seen[None].expand(patches.shape[0], -1)
            patches = patches.index_select(1, self.seen)
        level = snr_db.clamp(*EMBEDDED_DB) / 10
        level = self.snr(torch.cat([level, level.square()], dim=1))[:, None]
        tokens = encoder.embed(patches, self.encoder_args.channels[0], keep=keep) + level
        output = self.head(encoder.norm(encoder.run(tokens))[:, 1:]).float()
        return F.pad(self._unpatched(output), (0, self.held - shown))

    def _picture(self, whitened: Tensor) -> Tensor:
        """Modes [B, 2, A, P, shown] -> the encoder's tile [B, channels, side, side], zero outside the modes."""
        batch, _, antennas, _, shown = whitened.shape
        if self.args.log_power:
            power = whitened.square().sum(dim=1, keepdim=True)
            whitened = torch.cat([whitened, LOG_POWER_SCALE * (power + LOG_POWER_FLOOR).log()], dim=1)
        x = whitened.permute(0, 3, 1, 2, 4).reshape(batch, -1, antennas, shown)
        side = self.encoder_args.image
        return F.pad(x, (0, side - shown, 0, side - antennas))

    def _unpatched(self, tokens: Tensor) -> Tensor:
        """[B, patches, patch^2 P k] -> [B, k, A, P, shown]."""
        rows, columns = self._patches()
        patch, times = self.args.patch, len(self.spec.pilot_symbols)
        batch, each = tokens.shape[0], 3 if self.args.additive else 1
        x = tokens.reshape(batch, rows, columns, patch, patch, times, each).permute(0, 6, 1, 3, 5, 2, 4)
        x = x.reshape(batch, each, rows * patch, times, columns * patch)
        return x[:, :, : self.spec.antennas, :, : self.args.frequency_modes]

    def parameter_groups(self, lr: float, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
        """Optimiser groups, see parameters.parameter_groups.

        Raises
        ------
        ConfigurationError : a layer_decay other than 1, which is for fine-tuning.
        """
        if layer_decay != 1:
            raise ConfigurationError("ChannelModel", "layer_decay", layer_decay, "1: nothing is pre-trained")
        return parameter_groups(self.named_parameters(), lr, weight_decay, lambda name: 1.0)

    def config(self) -> dict[str, Any]:
        """Arguments beside the encoder's that a weights file stores."""
        return {"modes": asdict(self.args), "numerology": to_dict(self.spec), "held": self.held}


@dataclass(frozen=True, eq=False)
class _Modes:
    """Eigenmodes of a covariance between pilots, strongest first."""

    powers: NDArray[np.float64]
    """Eigenvalues [m]."""
    vectors: NDArray[np.complex128]
    """Eigenvectors [n, m]."""
    spread: NDArray[np.complex128]
    """[all, m]: each mode of unit amplitude at the pilots, interpolated to every position. Zero beyond `held`, as in
    core's LMMSE.
    """
    held: int
    """Number of modes with more than CUT times the strongest mode's power."""

    @classmethod
    def of(cls, covariance: NDArray[np.complex128], pilots: NDArray[np.int64]) -> _Modes:
        """Modes of a covariance [n, n] between the rows `pilots`."""
        powers, vectors = np.linalg.eigh(covariance[np.ix_(pilots, pilots)])
        held = int(np.count_nonzero(powers > CUT * powers[-1]))
        powers, vectors = np.maximum(powers[::-1], 0), vectors[:, ::-1]
        spread = np.zeros((len(covariance), len(powers)), np.complex128)
        spread[:, :held] = covariance[:, pilots] @ vectors[:, :held] / powers[:held]
        return cls(powers, vectors, spread, held)

    def first(self, count: int) -> _Modes:
        """The first `count` modes."""
        return _Modes(self.powers[:count], self.vectors[:, :count], self.spread[:, :count], self.held)


def _parts(matrix: NDArray[np.complex128]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return matrix.real, matrix.imag


def _from_left(matrix: NDArray[np.complex128]) -> NDArray[np.float64]:
    """The real matrix that acts on stacked real and imaginary parts as this complex matrix acts from the left."""
    real, imaginary = _parts(matrix)
    return np.block([[real, -imaginary], [imaginary, real]])


def _exact(tensor: Tensor) -> AbstractContextManager[Any]:
    """Disable autocast: rounding to bfloat16 would add noise 48 dB below the signal."""
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
