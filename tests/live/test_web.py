# SPDX-License-Identifier: GPL-3.0-or-later
"""The web server: who may use it, slow clients, downloads, health; and the page in a real browser."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import json
import os
import shutil
import tarfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.live_parts import RATE, FakePipeline, ListSource, blocks_of, eventually, scene
from wavesfm_core.errors import ConfigurationError
from wavesfm_core.live.config import WebConfig
from wavesfm_core.live.outputs.prometheus import Prometheus
from wavesfm_core.live.session import LiveSession
from wavesfm_core.live.spectra import Spectra, SpectrumRow
from wavesfm_core.live.status import fault_of, status_of
from wavesfm_core.live.web.access import Access
from wavesfm_core.live.web.clients import ROW_HEADER, ROWS_WAITING, TEXTS_WAITING, Client, pack_row
from wavesfm_core.live.web.server import WebServer

TOKEN = "0123456789abcdef"
BROWSER = shutil.which("chromium-headless-shell") or shutil.which("chromium")


@pytest.mark.parametrize(
    "headers, token, is_allowed",
    [
        ({"Host": "127.0.0.1:8080"}, None, True),
        ({"Host": "[::1]:8080"}, None, True),
        ({"Host": "evil.example:8080"}, None, False),
        ({"Host": "localhost", "Origin": "http://localhost"}, None, True),
        ({"Host": "localhost", "Origin": "http://evil.example"}, None, False),
        ({"Host": "site"}, TOKEN, False),
        ({"Host": "site", "Authorization": f"Bearer {TOKEN}"}, TOKEN, True),
        ({"Host": "site", "Authorization": f"Bearer {TOKEN}x"}, TOKEN, False),
        ({"Host": "site", "Authorization": "Bearer é"}, TOKEN, False),
        ({"Host": "site", "Sec-WebSocket-Protocol": f"wavesfm, bearer.{TOKEN}"}, TOKEN, True),
        ({"Host": "site", "Sec-WebSocket-Protocol": "wavesfm, bearer."}, TOKEN, False),
        ({"Host": "site", "Origin": "http://evil.example", "Authorization": f"Bearer {TOKEN}"}, TOKEN, False),
    ],
)
def test_access(headers: dict, token: str | None, is_allowed: bool) -> None:
    assert (Access(token).refusal(headers) == "") == is_allowed


def test_slow_clients_skip_the_oldest() -> None:
    async def drain() -> tuple[list, Client]:
        client = Client()
        for number in range(10):
            client.put_row(bytes([number]))
            client.put_latest("status", str(number))
        for number in range(TEXTS_WAITING + 3):
            client.put_text(f"text {number}")
        return [await client.next() for _ in range(1 + TEXTS_WAITING + ROWS_WAITING)], client

    messages, client = asyncio.run(drain())
    assert messages[:2] == ["9", "text 3"]
    assert messages[-ROWS_WAITING:] == [bytes([number]) for number in range(10 - ROWS_WAITING, 10)]
    assert (client.rows_skipped, client.texts_skipped) == (10 - ROWS_WAITING, 3)


def test_rows_are_packed_as_the_page_reads_them() -> None:
    power_db = np.linspace(-100, -20, 1024).astype(np.float32)
    packed = pack_row(SpectrumRow(5, 700, 2e6, 1e8, None, power_db))
    version, flags, bins, count, start, rate, centre, time, lowest, step = ROW_HEADER.unpack_from(packed)
    assert (version, flags, bins, count, start, rate, centre, time) == (1, 1, 1024, 700, 5.0, 2e6, 1e8, 0.0)
    assert np.abs(lowest + step * np.frombuffer(packed, np.uint8, offset=48) - power_db).max() <= step


def test_rows_of_a_waterfall_do_not_depend_on_the_blocks() -> None:
    samples = scene(0.3)
    whole = Spectra(20.0, 256)
    rows = whole.push(0, samples, RATE, 1e8, None)
    assert len(rows) == 6 and [row.start_sample for row in rows] == list(range(0, 300_000, 50_000))
    pieces = Spectra(20.0, 256)
    cut = [row for at in range(0, 300_000, 25_000) for row in pieces.push(at, samples[at:][:25_000], RATE, 1e8, None)]
    assert len(cut) == 6
    assert np.abs(cut[2].power_db - rows[2].power_db).mean() < 1.5
    peak_hz = (np.argmax(rows[0].power_db) - 128) * RATE / 256
    assert -3.1e5 < peak_hz < -1.4e5
    assert pieces.push(999, samples[:25_000], RATE, 2e8, None) == []  # a retune begins a row anew


class Site:
    """A server over a session whose source is held at its last block."""

    def __init__(self, token: str | None = None) -> None:
        self.gate = threading.Event()
        blocks = blocks_of(scene(0.6)) * 2
        self.session = LiveSession(ListSource(blocks, gates={len(blocks) - 1: self.gate}), FakePipeline, ring_s=3.0)
        self.status = lambda: status_of(self.session, [], 0.0)
        config = WebConfig("127.0.0.1", 0, most_clients=2)
        self.server = WebServer(self.session, config, token, self.status, Prometheus())
        self.thread = threading.Thread(target=self.session.run)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.port}{path}"

    def get(self, path: str, headers: dict | None = None) -> tuple[int, dict, bytes]:
        request = urllib.request.Request(self.url(path), headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=100) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()

    def feed(self) -> None:
        """Run the session until all but its last block are searched."""
        self.thread.start()
        eventually(lambda: self.session.accounts.samples_searched >= 1_180_000)

    def close(self) -> None:
        self.gate.set()
        self.session.close()
        self.server.close()


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


@pytest.fixture
def guarded_site() -> Iterator[Site]:
    made = Site(TOKEN)
    yield made
    made.close()


def test_only_known_paths_are_served(site: Site) -> None:
    code, headers, body = site.get("/")
    assert code == 200 and b"WavesFM" in body
    assert (
        "default-src 'none'" in headers["Content-Security-Policy"] and "http" not in headers["Content-Security-Policy"]
    )
    for path in ("/live.js", "/live.css"):
        assert site.get(path)[0] == 200
    for path in ("/server.py", "/page/index.html", "/..%2fserver.py", "/%2e%2e/%2e%2e/etc/passwd", "/api/emitters/x/y"):
        assert site.get(path)[0] == 404
    assert site.get("/api/emitters/7/recording")[0] == 404
    assert site.get("/", {"Host": "evil.example"})[0] == 200  # the page holds no data
    assert site.get("/metrics", {"Host": "evil.example"})[0] == 401
    assert site.get("/metrics")[0] == 200
    with pytest.raises(ConfigurationError, match="address already in use"):
        WebServer(site.session, WebConfig("127.0.0.1", site.server.port), None, site.status)


def test_a_token_guards_all_data(guarded_site: Site) -> None:
    site, right = guarded_site, {"Authorization": f"Bearer {TOKEN}"}
    for path in ("/api/live", "/api/emitters/1/recording", "/metrics"):
        code, headers, _ = site.get(path)
        assert (code, headers["WWW-Authenticate"]) == (401, "Bearer")
        assert site.get(path, {"Authorization": "Bearer wrong"})[0] == 401
    assert site.get("/metrics", right)[0] == 200
    assert json.loads(site.get("/health")[2]) == {"status": "ok"}
    assert json.loads(site.get("/health", right)[2])["details"]["source"] == "list"


def test_an_emitter_is_downloaded_from_the_ring(site: Site) -> None:
    site.feed()
    emitter = next(known.emitter for known in site.session.emitters.all() if known.emitter.label == "narrow")
    code, headers, body = site.get(f"/api/emitters/{emitter.number}/recording")
    assert code == 200 and headers["Content-Disposition"].endswith('.sigmf"')
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        assert len(archive.getnames()) == 2
    site.session.ring._blocks.clear()
    assert site.get(f"/api/emitters/{emitter.number}/recording")[0] == 410


def test_health_names_the_fault() -> None:
    accounts = {"samples_in": 5, "samples_searched": 5}
    status = {"silent_s": 1.0, "uptime_s": 99.0, "accounts": accounts}
    assert fault_of(status) == ""
    assert fault_of({**status, "silent_s": 61.0}) == "no samples for 61 s"
    assert "no sample was searched" in fault_of({**status, "accounts": {**accounts, "samples_searched": 0}})


def test_websockets_get_states_records_and_rows(guarded_site: Site) -> None:
    import aiohttp

    site = guarded_site

    async def listen() -> tuple[set[str], int, int]:
        url = site.url("/api/live")
        async with aiohttp.ClientSession() as client:
            async with client.ws_connect(url, protocols=("wavesfm", f"bearer.{TOKEN}")) as socket:
                assert socket.protocol == "wavesfm"
                site.feed_thread = threading.Thread(target=site.feed)
                site.feed_thread.start()
                kinds: set[str] = set()
                while not {"status", "emitters", "event", "row"} <= kinds:
                    message = await socket.receive(timeout=100)
                    is_row = message.type == aiohttp.WSMsgType.BINARY
                    kinds.add("row" if is_row else json.loads(message.data)["type"])
                async with client.ws_connect(url, protocols=("wavesfm", f"bearer.{TOKEN}")):
                    refused = await client.get(url, headers={"Authorization": f"Bearer {TOKEN}"})
                    clients = site.server.accounts["clients"]
            return kinds, clients, refused.status

    kinds, clients, code = asyncio.run(listen())
    site.feed_thread.join()
    assert kinds >= {"status", "emitters", "event", "row"}
    assert (clients, code) == (2, 503)
    eventually(lambda: site.server.accounts["clients"] == 0)


@pytest.mark.skipif(BROWSER is None, reason="there is no chromium")
@pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="there is no playwright")
def test_the_page_in_a_browser(guarded_site: Site, tmp_path: Path) -> None:
    """Token, waterfall with boxes, selection, download, dark and light."""
    from playwright.sync_api import sync_playwright

    site = guarded_site
    shots = Path(os.environ.get("WAVESFM_SHOTS", tmp_path))
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
        page = context.new_page()
        page.set_default_timeout(100_000)
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(site.url("/"))
        page.fill("#token", "wrong-token-0000")
        page.click("#login button")
        page.wait_for_selector("#login[open]")
        page.fill("#token", TOKEN)
        page.click("#login button")
        page.wait_for_selector("#state.good")
        site.feed()
        site.server.take_status(site.status())
        eventually(lambda: page.evaluate("document.querySelectorAll('#emitters tr').length >= 2"))
        eventually(lambda: page.evaluate("state.frames >= 15"))
        page.click("#emitters tr:has-text('narrow')")
        assert page.inner_text("#selected-title").startswith("narrow 80 %")
        assert page.locator("#bars .bar").count() == 4
        with page.expect_download() as waiting:
            page.click("#download")
        waiting.value.save_as(tmp_path / "emitter.sigmf")
        with tarfile.open(tmp_path / "emitter.sigmf") as archive:
            assert len(archive.getnames()) == 2
        eventually(lambda: page.evaluate("state.hits.length >= 2"))
        box = page.evaluate("state.hits[0]")
        page.click("#waterfall", position={"x": box["x"] + box["w"] / 2, "y": box["y"] + 3})
        colours = set()
        for _ in range(2):
            page.click("#theme")
            colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            page.screenshot(path=shots / f"live-{len(colours)}.png")
        assert len(colours) == 2
        assert page.locator("#events li").count() >= 2
        assert faults == []
        browser.close()
