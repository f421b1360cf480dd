"""A headless browser, driven by chromedriver's WebDriver protocol (W3C) over HTTP."""

import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

PROGRAMS = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
MISSING = [name for name, path in PROGRAMS.items() if path is None]
ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element in the protocol


class Browser:
    """A session of the driver at `url`."""

    def __init__(self, url: str, arguments: list[str]):
        self.url = url
        chromium = {"binary": PROGRAMS["chromium"], "args": [*ARGUMENTS, *arguments]}
        wanted = {"goog:chromeOptions": chromium, "goog:loggingPrefs": {"browser": "ALL"}}
        body = {"capabilities": {"alwaysMatch": wanted}}
        self.url += "/session/" + self._call("/session", body)["sessionId"]

    def open(self, url: str) -> None:
        """Open a page and wait until it is loaded."""
        self._call("/url", {"url": url})

    def script(self, code: str, *arguments):
        """Return what JavaScript returns, after the promise that it may be."""
        return self._call("/execute/sync", {"script": code, "args": list(arguments)})

    def click(self, selector: str) -> None:
        """Click on an element as a person does: it must be in view and not covered."""
        found = self._call("/element", {"using": "css selector", "value": selector})[ELEMENT]
        self._call(f"/element/{found}/click", {})

    def press(self, *keys: str) -> None:
        """Press and release keys one after the other, wherever the focus is."""
        strokes = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        keyboard = {"type": "key", "id": "keyboard", "actions": strokes}
        self._call("/actions", {"actions": [keyboard]})

    def resize(self, width: int, height: int) -> None:
        """Set the size of the page in pixels, which may be smaller than that of any window."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        command = {"cmd": "Emulation.setDeviceMetricsOverride", "params": screen}
        self._call("/goog/cdp/execute", command)

    def screenshot(self) -> bytes:
        """Return what is seen of the page, as a PNG file."""
        return base64.b64decode(self._call("/screenshot", method="GET"))

    def wait(self, condition: str, seconds: float = 60) -> None:
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + seconds
        while not self.script(f"return Boolean({condition})"):
            assert time.monotonic() < end, f"{condition}: never"
            time.sleep(0.02)

    def errors(self) -> list[str]:
        """Return what the console says."""
        return [entry["message"] for entry in self._call("/se/log", {"type": "browser"})]

    def close(self) -> None:
        """End the browser."""
        self._call("", method="DELETE")

    def _call(self, path: str, body: dict | None = None, method: str | None = None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]


@contextmanager
def browser(*arguments: str) -> Iterator[Browser]:
    """Start the driver and a browser, and end both.

    Their files are in a temporary folder of a short name: the path of a socket has 107 characters.
    """
    with tempfile.TemporaryDirectory() as folder:
        yield from _browser(folder, arguments)


def _browser(folder: str, arguments: tuple[str, ...]) -> Iterator[Browser]:
    """Yield a browser whose files are in `folder`."""
    driver = subprocess.Popen(
        [PROGRAMS["chromedriver"], "--port=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": folder},
        text=True,
    )
    try:
        port = next(
            found[1] for line in driver.stdout if (found := re.search(r"on port (\d+)\.", line))
        )
        session = Browser(f"http://127.0.0.1:{port}", list(arguments))
        try:
            yield session
        finally:
            session.close()
    finally:
        driver.terminate()
        driver.wait()
        driver.stdout.close()
