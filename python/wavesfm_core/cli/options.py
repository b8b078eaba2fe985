# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that several commands share, each described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Recordings = Annotated[
    list[str],
    typer.Argument(
        metavar="RECORDING...",
        help="SigMF, .sigmf archives, WAV, .sdriq, raw samples; folders; a named pipe or - for standard input.",
        show_default=False,
    ),
]
Model = Annotated[Path, typer.Option("--model", metavar="BUNDLE", help="Directory of the bundle to use.")]
Rate = Annotated[str | None, typer.Option("--rate", metavar="HZ", help="Sample rate: 1.92e6, 2M, 250k.")]
Format = Annotated[
    str | None,
    typer.Option("--format", help="Such as cu8, cs8, cs16, cf32 or rs16, instead of what name and bytes tell."),
]
Centre = Annotated[str | None, typer.Option("--centre", metavar="HZ", help="Centre frequency: 433.92M.")]
Channel = Annotated[int | None, typer.Option("--channel", help="Channel of a SigMF recording with several, from 0.")]
Start = Annotated[str | None, typer.Option("--start", help="Skip so much: 2.5s, 40ms, or a number of samples.")]
Length = Annotated[str | None, typer.Option("--length", help="Read so much: 2.5s, 40ms, or a number of samples.")]
Device = Annotated[
    str, typer.Option("--device", help="auto, cpu, tensorrt, openvino, onnxruntime or kserve://HOST:PORT/MODEL.")
]
Precision = Annotated[str, typer.Option("--precision", help="auto, f32, bf16; int8 if compiled; with TensorRT fp16.")]
DeviceId = Annotated[int, typer.Option("--device-id", help="Which GPU, from 0.")]
Threads = Annotated[int, typer.Option("--threads", help="Threads of the engine; 0: automatic.")]
Gate = Annotated[str, typer.Option("--gate", metavar="DB|off", help="Power gate, dB over the noise floor.")]
Threshold = Annotated[float | None, typer.Option("--threshold", help="Lower confidence is labelled 'unknown'.")]
Detect = Annotated[
    str,
    typer.Option("--detect", help="Search the band for signals and name each: auto, on or off (the whole band only)."),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", help="Share the recordings out to N processes; needs --results."),
]
Ray = Annotated[
    str | None,
    typer.Option("--ray", metavar="ADDRESS", help="Share them out over a Ray cluster: auto or HOST:PORT."),
]
Results = Annotated[
    Path | None,
    typer.Option(
        "--results", metavar="FOLDER", help="One result file for each recording; an interrupted run goes on there."
    ),
]
