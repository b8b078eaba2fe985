# SPDX-License-Identifier: GPL-3.0-or-later
"""NVIDIA Triton Inference Server on loopback, from the wheel nvidia-pytriton.

The wheel has Triton's Python backend only. So a repository that `export_repository` wrote gets a model.py, which runs
its model.onnx in onnxruntime, and its config.pbtxt names that backend; all else of it is served as written.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

NEEDS = ("pytriton", "tritonclient", "onnxruntime")
MISSING = ", ".join(name for name in NEEDS if importlib.util.find_spec(name) is None)
"""Packages that are missing; "" where the server can be started."""
START_S = 600.0
"""A server that is not ready after so long is not going to be."""
MODEL_PY = """\
import sys
sys.path[:0] = {path!r}
import os
import time
import onnxruntime
import triton_python_backend_utils as pb

class TritonPythonModel:
    def initialize(self, args):
        folder = os.path.join(args["model_repository"], args["model_version"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.path.join(folder, "model.onnx"), options)

    def execute(self, requests):
        with open({delay!r}) as file:
            time.sleep(float(file.read()))
        return [self.answer(request) for request in requests]

    def answer(self, request):
        feed = {{i.name: pb.get_input_tensor_by_name(request, i.name).as_numpy() for i in self.session.get_inputs()}}
        results = self.session.run(None, feed)
        tensors = [pb.Tensor(o.name, result) for o, result in zip(self.session.get_outputs(), results)]
        return pb.InferenceResponse(tensors)
"""


class TritonServer:
    """A server process; `kill` ends it at once, `start` starts it again at the same ports."""

    def __init__(self, folder: Path, repository: Path) -> None:
        import pytriton

        self._tools = Path(pytriton.__file__).parent / "tritonserver"
        self._folder, self._repository = folder, repository
        self._delay = folder / "delay_s"
        self._prefix = f"wavesfm_{secrets.token_hex(6)}_"
        self.http_port, self.grpc_port = _free_ports(2)
        self._process: subprocess.Popen[bytes] | None = None
        self.delay(0.0)
        for config in repository.glob("*/config.pbtxt"):
            self._serve_in_python(config)
        backend = folder / "backends" / "python"
        shutil.copytree(self._tools / "backends" / "python", backend)
        stub = f"{sys.version_info.major}.{sys.version_info.minor}/triton_python_backend_stub"
        shutil.copy(self._tools / "python_backend_stubs" / stub, backend)

    def delay(self, seconds: float) -> None:
        """Let every answer from now on take so much longer."""
        scratch = self._delay.with_suffix(".part")
        scratch.write_text(str(seconds))
        os.replace(scratch, self._delay)

    def device(self, model: str, protocol: str, options: str = "") -> str:
        """The address of a model for `open_engine`."""
        port = self.grpc_port if protocol == "grpc" else self.http_port
        return f"kserve://127.0.0.1:{port}/{model}?protocol={protocol}{options}"

    def start(self) -> None:
        """Start the server and wait until it is ready."""
        command = [
            str(self._tools / "bin" / "tritonserver"),
            f"--model-repository={self._repository}",
            f"--backend-directory={self._folder / 'backends'}",
            f"--backend-config=python,shm-region-prefix-name={self._prefix}",
            f"--http-port={self.http_port}",
            f"--grpc-port={self.grpc_port}",
            "--http-address=127.0.0.1",
            "--grpc-address=127.0.0.1",
            "--allow-metrics=false",
            "--http-thread-count=2",
        ]
        libraries = self._tools.parent.parent / "nvidia_pytriton.libs"
        environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
        with open(self._folder / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True, cwd=self._folder
            )
        self._wait_until_ready()

    def kill(self) -> None:
        """End the server without warning."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for region in Path("/dev/shm").glob(f"{self._prefix}*"):
            region.unlink(missing_ok=True)

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        end_s = time.monotonic() + START_S
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while time.monotonic() < end_s and self._process.poll() is None:
            with contextlib.suppress(OSError):
                opener.open(f"http://127.0.0.1:{self.http_port}/v2/health/ready", timeout=START_S).close()
                return
            time.sleep(0.1)
        log = (self._folder / "server.log").read_text(errors="replace")
        self.kill()
        raise RuntimeError(f"Triton did not become ready: {log[-3000:]}")

    def _serve_in_python(self, config: Path) -> None:
        text = config.read_text()
        assert text.count('backend: "onnxruntime"') == 1
        config.write_text(text.replace('backend: "onnxruntime"', 'backend: "python"'))
        code = MODEL_PY.format(path=[each for each in sys.path if "packages" in each], delay=str(self._delay))
        for version in config.parent.glob("[0-9]*"):
            (version / "model.py").write_text(code)


@contextlib.contextmanager
def running(folder: Path, repository: Path) -> Iterator[TritonServer]:
    """A started server, killed at the end."""
    server = TritonServer(folder, repository)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
