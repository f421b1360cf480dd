"""The HTTP server of the app: the loopback address only, six files and JSON over POST.

It answers its own page in a browser on this machine, and no other page: the Host header must name
the loopback address (against DNS rebinding), the Origin must be the app's own, and a POST must be
JSON, for which another page needs a preflight request. Paths are looked up in a table and never
reach the file system.
"""

import contextlib
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import TYPE_CHECKING

from ad.config.schema import Experiment
from ad.errors import ADError, MachineError
from ad.runtime.console import info
from ad.runtime.run import Run
from ad.runtime.signals import Terminated

if TYPE_CHECKING:
    from ad.models.sequence_model import SequenceModel

ADDRESS = "127.0.0.1"
MOST_BYTES = 2**16  # of a request
FILES = {  # path -> package, file and type
    "/": ("ad.interpret.app", "page.html", "text/html"),
    "/app.css": ("ad.interpret.app", "app.css", "text/css"),
    "/app.js": ("ad.interpret.app", "app.js", "text/javascript"),
    "/page.css": ("ad.reporting", "page.css", "text/css"),
    "/arrays.js": ("ad.interpret", "arrays.js", "text/javascript"),
    "/charts.js": ("ad.reporting", "charts.js", "text/javascript"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


Answer = Callable[[str, dict], dict]  # a route and the body of a request -> the answer


class AppServer(ThreadingHTTPServer):
    """The server of an app on `port` of the loopback address; 0 is any free port.

    `new_answer` makes the function that answers requests; it raises ADError for bad requests. One
    thread calls both, in the order of the requests. The thread of a connection only waits, so that
    an idle connection of a browser blocks no other. Raises MachineError if the port is taken.
    """

    daemon_threads = True

    def __init__(self, new_answer: Callable[[], Answer], port: int = 0):
        self.worker = ThreadPoolExecutor(1)
        self.answer = self.worker.submit(new_answer).result()
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            sentence = f"port {port} cannot be used ({error.strerror}): choose another with --port"
            raise MachineError(sentence) from error

    @property
    def hosts(self) -> set[str]:
        """The values of the Host header that are answered."""
        port = self.server_address[1]
        return {f"{name}:{port}" for name in (ADDRESS, "localhost")}

    def handle_error(self, request, client_address) -> None:
        """Print the traceback of a bug, but not of a page that was closed before its answer."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def server_close(self) -> None:
        """Close the socket and end the thread that answers."""
        super().server_close()
        self.worker.shutdown(wait=False, cancel_futures=True)


def serve_run(
    config: Experiment, port: int, load: Callable[[], "SequenceModel | None"] = lambda: None
) -> None:
    """Serve the app of the run of `config` until a signal ends it. Raises as AppServer does.

    `load` returns a released model that plays in place of the checkpoints of the run, if any.
    """
    from ad.interpret.app.requests import App

    run = Run(config)
    with (
        contextlib.suppress(KeyboardInterrupt, Terminated),  # which is how it ends
        AppServer(lambda: App(run, load()).answer, port) as server,
    ):
        address = f"http://{ADDRESS}:{server.server_address[1]}/"
        info(f"the app of {config.name}: {address} (Ctrl-C ends it)")
        server.serve_forever()


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    timeout = 30  # seconds that a connection may be silent
    server: AppServer  # ty: ignore[incompatible-mutable-override] it makes the handlers

    def do_GET(self) -> None:
        """Answer with a file of the page."""
        if self._is_refused():
            return
        if self.path not in FILES:
            return self._send_error(HTTPStatus.NOT_FOUND, "there is no such page")
        package, name, kind = FILES[self.path]
        content = files(package).joinpath(name).read_bytes()
        self._send(HTTPStatus.OK, content, f"{kind}; charset=utf-8")

    def do_POST(self) -> None:
        """Answer a request of the page, JSON for JSON."""
        if self._is_refused():
            return
        try:
            body = self._body()
        except ValueError as error:
            return self._send_error(HTTPStatus.BAD_REQUEST, str(error))
        try:
            answer = self.server.worker.submit(self.server.answer, self.path[1:], body).result()
        except ADError as error:
            return self._send_error(HTTPStatus.BAD_REQUEST, str(error))
        except Exception:
            self._send_error(HTTPStatus.INTERNAL_SERVER_ERROR, "the app failed: see its terminal")
            raise
        self._send_json(HTTPStatus.OK, answer)

    def log_message(self, format: str, *args) -> None:
        """Print nothing."""

    def _is_refused(self) -> bool:
        """Refuse a request that is not from the app's own page; return whether it was refused."""
        host, origin = self.headers.get("Host"), self.headers.get("Origin")
        if host in self.server.hosts and origin in (None, f"http://{host}"):
            return False
        self._send_error(HTTPStatus.FORBIDDEN, "the app answers its own page on this machine only")
        return True

    def _body(self) -> dict:
        """Return the JSON object of the request. Raises ValueError with a sentence."""
        if self.headers.get_content_type() != "application/json":
            raise ValueError("a request must be JSON: Content-Type application/json")
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or int(length) > MOST_BYTES:
            raise ValueError(f"a request must have a length of at most {MOST_BYTES} bytes")
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise ValueError("a request must be a JSON object")
        return body

    def _send_error(self, status: HTTPStatus, sentence: str) -> None:
        self.close_connection = True  # what is left of the request is not read
        self._send_json(status, {"error": sentence})

    def _send_json(self, status: HTTPStatus, answer: dict) -> None:
        content = json.dumps(answer, allow_nan=False).encode()
        self._send(status, content, "application/json")

    def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
