# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP server on a thread of its own, with its own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import TYPE_CHECKING, Any

from ...band.types import Emitter
from ...errors import ConfigurationError, WavesfmError
from ...packages import install_command
from ..bus import Record
from ..config import WebConfig
from ..extract import emitter_recording
from ..outputs.prometheus import Prometheus
from ..session import LiveSession
from ..spectra import SpectrumRow
from ..status import fault_of
from .access import PROTOCOL, Access
from .clients import Client, pack_row, text_of

if TYPE_CHECKING:
    from aiohttp import web

log = logging.getLogger(__name__)

PAGE = {
    "/": ("index.html", "text/html"),
    "/live.js": ("live.js", "text/javascript"),
    "/live.css": ("live.css", "text/css"),
}
"""Every file that is served, by its path."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
START_S = 10.0
CLOSE_S = 5.0
SEND_S = 10.0  # after which a client that takes nothing is closed
DOWNLOAD_BYTES = 64 << 20  # of samples that a download is cut from
DOWNLOADS = 2  # at the same time
MESSAGE_LIMIT = 1024  # bytes of a message of a client; the page sends none

Handler = Callable[["web.Request"], Awaitable["web.StreamResponse"]]


class WebServer:
    """Serves a session. The constructor returns when the port is open.

    Parameters
    ----------
    session : LiveSession
        Whose rows and records are shown.
    config : WebConfig
        Address, limits, and whether there is a page.
    token : str or None
        Bearer token; None on loopback.
    status : callable
        Returns the present status, see `status_of`.
    metrics : Prometheus or None
        Served at /metrics.

    Raises
    ------
    ConfigurationError
        The package aiohttp is missing, or the address cannot be listened on.
    """

    def __init__(
        self,
        session: LiveSession,
        config: WebConfig,
        token: str | None,
        status: Callable[[], dict[str, Any]],
        metrics: Prometheus | None = None,
    ) -> None:
        try:
            from aiohttp import web
        except ImportError as error:
            raise ConfigurationError("web", "library aiohttp", error, install_command("aiohttp")) from error
        self._web = web
        self._session, self._config, self._status, self._metrics = session, config, status, metrics
        self._access = Access(token)
        self._clients: set[Client] = set()
        self._skipped = [0, 0]  # rows and texts of clients that are gone
        self._downloads = asyncio.Semaphore(DOWNLOADS)
        self._loop = asyncio.new_event_loop()
        self._opened = threading.Event()
        self._error: OSError | None = None
        self._end: asyncio.Event | None = None
        self.port = 0
        self._thread = threading.Thread(target=self._work, name="wavesfm-web", daemon=True)
        self._thread.start()
        self._opened.wait(START_S)
        if self._error is not None or not self.port:
            found = self._error.strerror if self._error else "no answer"
            raise ConfigurationError("web", "listen", f"{config.host}:{config.port} ({found})", "a free address")
        session.on_rows.append(self._take_row)
        session.bus.add(self._take_record)

    port: int
    """The one that is open."""

    @property
    def accounts(self) -> dict[str, int]:
        """Clients, and the rows and messages that slow ones skipped."""
        clients = list(self._clients)
        rows = self._skipped[0] + sum(client.rows_skipped for client in clients)
        texts = self._skipped[1] + sum(client.texts_skipped for client in clients)
        return {"clients": len(clients), "rows_skipped": rows, "messages_skipped": texts}

    def take_status(self, status: dict[str, Any]) -> None:
        """Show a status and the table of emitters; from any thread."""
        emitters = [emitter_row(known.emitter, known.is_active) for known in self._session.emitters.all()]
        self._put_latest("status", text_of("status", status))
        self._put_latest("emitters", text_of("emitters", {"emitters": emitters}))

    def close(self) -> None:
        """Close all clients and the port."""
        self._session.on_rows.remove(self._take_row)
        self._session.bus.remove(self._take_record)
        self._call(lambda: self._end.set() if self._end else None)
        self._thread.join(CLOSE_S)

    def _take_row(self, row: SpectrumRow) -> None:
        if self._clients:
            packed = pack_row(row)
            self._for_clients(lambda client: client.put_row(packed))

    def _take_record(self, record: Record) -> None:
        if self._clients and record.kind != "status":
            text = text_of(record.kind, {**record.as_dict(), "probabilities": None})
            self._for_clients(lambda client: client.put_text(text))

    def _put_latest(self, kind: str, text: str) -> None:
        if self._clients:
            self._for_clients(lambda client: client.put_latest(kind, text))

    def _for_clients(self, call: Callable[[Client], None]) -> None:
        """Call with each client on the event loop."""

        def call_all() -> None:
            for client in self._clients:
                call(client)

        self._call(call_all)

    def _call(self, call: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(call)

    def _work(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except OSError as error:
            self._error = error
        except Exception:
            log.exception("the web server has ended")
        finally:
            self._opened.set()
            self._loop.close()

    async def _serve(self) -> None:
        web = self._web
        self._end = asyncio.Event()

        async def guard(request: Any, handler: Handler) -> Any:
            return await self._guard(request, handler)

        application = web.Application(middlewares=[web.middleware(guard)], client_max_size=MESSAGE_LIMIT)
        application.router.add_get("/health", self._health)
        if self._metrics is not None:
            application.router.add_get("/metrics", self._serve_metrics)
        if self._config.page:
            for path in PAGE:
                application.router.add_get(path, self._file)
            application.router.add_get("/api/live", self._live)
            application.router.add_get(r"/api/emitters/{number:\d{1,12}}/recording", self._download)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._config.host, self._config.port)
            await site.start()
            self.port = runner.addresses[0][1]
            self._opened.set()
            await self._end.wait()
        finally:
            await runner.cleanup()

    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse strangers; the page itself and the health's word are for everybody who reaches the port."""
        answer: web.StreamResponse
        is_open = request.path in PAGE or request.path == "/health"
        refusal = "" if is_open else self._access.refusal(request.headers)
        if refusal:
            answer = self._web.json_response({"error": refusal}, status=401)
            answer.headers["WWW-Authenticate"] = "Bearer"
        else:
            try:
                answer = await handler(request)
            except self._web.HTTPException as error:
                answer = self._web.json_response({"error": error.reason}, status=error.status)
        if not answer.prepared:
            answer.headers.update(HEADERS)
        return answer

    async def _health(self, request: web.Request) -> web.Response:
        """200 or 503, for a supervisor. The reason is only for those who have the token."""
        status = self._status()
        fault = fault_of(status)
        body: dict[str, Any] = {"status": "fault" if fault else "ok"}
        if not self._access.refusal(request.headers):
            body |= {"fault": fault, "details": status}
        return self._web.json_response(body, status=503 if fault else 200)

    async def _serve_metrics(self, request: web.Request) -> web.Response:
        assert self._metrics is not None
        return self._web.Response(body=self._metrics.text(), content_type="text/plain", charset="utf-8")

    async def _file(self, request: web.Request) -> web.Response:
        name, kind = PAGE[request.path]
        text = resources.files(__package__).joinpath("page", name).read_text(encoding="utf-8")
        return self._web.Response(text=text, content_type=kind)

    async def _live(self, request: web.Request) -> web.StreamResponse:
        """The WebSocket of a page."""
        if len(self._clients) >= self._config.most_clients:
            return self._web.json_response({"error": "too many clients"}, status=503)
        socket = self._web.WebSocketResponse(
            protocols=(PROTOCOL,), heartbeat=20.0, max_msg_size=MESSAGE_LIMIT, compress=False, timeout=2.0
        )
        await socket.prepare(request)
        client = Client()
        self._clients.add(client)
        self.take_status(self._status())
        sender = asyncio.create_task(self._send(socket, client))
        try:
            async for _ in socket:  # the page sends nothing; this sees the end
                break
        finally:
            sender.cancel()
            self._clients.discard(client)
            self._skipped[0] += client.rows_skipped
            self._skipped[1] += client.texts_skipped
            await socket.close()
        return socket

    async def _send(self, socket: web.WebSocketResponse, client: Client) -> None:
        try:
            while not socket.closed:
                message = await client.next()
                send = socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message)
                await asyncio.wait_for(send, SEND_S)
        except (ConnectionError, TimeoutError):
            await socket.close()

    async def _download(self, request: web.Request) -> web.Response:
        """A SigMF archive of an emitter, cut out of the ring."""
        session = self._session
        number = int(request.match_info["number"])
        emitter = session.emitters.find(number)
        if session.ring is None or emitter is None:
            return self._web.json_response({"error": "this emitter is not known any more"}, status=404)
        ring, name = session.ring, f"wavesfm-emitter-{number}"
        async with self._downloads:
            try:
                archive = await asyncio.to_thread(
                    lambda: emitter_recording(ring, emitter, DOWNLOAD_BYTES // 8).archive(name)
                )
            except WavesfmError as error:
                return self._web.json_response({"error": f"its samples are not kept any more: {error}"}, status=410)
        headers = {"Content-Disposition": f'attachment; filename="{name}.sigmf"'}
        return self._web.Response(body=archive, content_type="application/x-tar", headers=headers)


def emitter_row(emitter: Emitter, is_active: bool) -> dict[str, Any]:
    """What the page shows of an emitter: plain types for JSON, without all probabilities."""
    values = emitter.as_dict()
    best = sorted(values.pop("probabilities").items(), key=lambda item: -item[1])[:5]
    return {**values, "is_active": is_active, "best": [[label, round(share, 4)] for label, share in best]}
