# SPDX-License-Identifier: GPL-3.0-or-later
"""Optional packages and how they are installed; pyproject.toml has the same requirements in its extras."""

from __future__ import annotations

REQUIREMENTS = {
    "onnxruntime": "onnxruntime>=1.19",
    "openvino": "openvino>=2024.0,<2026",
    "tritonclient": "tritonclient[grpc,http]>=2.50",
    "ray": "ray>=2.40",
    "onnx": "onnx>=1.17",
    "tensorrt_rtx": "tensorrt-rtx-cu13>=1.1",
    "typer": "typer>=0.12",
    "rich": "rich>=13",
    "sigmf": "sigmf>=1.2",
    "yaml": "pyyaml>=6",
    "jsonschema": "jsonschema>=4.10",
    "aiohttp": "aiohttp>=3.9",
    "zmq": "pyzmq>=24",
    "paho": "paho-mqtt>=2.0",
    "prometheus_client": "prometheus-client>=0.20",
}
"""By the name of the module to import."""


def install_command(*modules: str) -> str:
    """The command that installs the packages of these modules, for error messages."""
    return "pip install " + " ".join(f"'{REQUIREMENTS[module]}'" for module in modules)
