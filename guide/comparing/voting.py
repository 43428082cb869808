"""`guide compare --vote RUN`: a page on this machine alone where people choose between two pictures without knowing which is which."""

import io
import json
import re
import secrets
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from guide.comparing.ballots import CHOICES, FILE, Box, Pair, agreement, load_rows, pairs
from probes.errors import UserError

HOST = "127.0.0.1"
MOST_BYTES = 2048  # of a vote
VOTER = re.compile(r"[A-Za-z0-9_-]{8,64}")
TEMPLATES = Path(__file__).parent / "templates"


class Refused(Exception):
    """A request that is not answered as asked: the status, and why, in a sentence."""

    def __init__(self, status: HTTPStatus, reason: str):
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass
class Booth:
    """The run, its pairs, the votes. `token` is on the page alone: another site, which cannot read it, cannot vote."""

    folder: Path
    pairs: list[Pair]
    box: Box
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    @classmethod
    def of(cls, folder: Path) -> "Booth":
        found = pairs(load_rows(folder))
        if not found:
            raise UserError(f"The run {folder} has no guided picture beside an unguided one, so that there is nothing to choose between.")
        if gone := next((row["image"] for pair in found for row in (pair.left, pair.right) if not (folder / row["image"]).is_file()), None):
            raise UserError(f"The picture {gone} is missing in {folder}; run the comparison again to make it.")
        return cls(folder, found, Box(folder / FILE))

    @cached_property
    def by_key(self) -> dict[str, Pair]:
        return {pair.key: pair for pair in self.pairs}

    def next(self, voter: str) -> dict[str, Any]:
        """The first pair that the voter has not seen, and how far they are."""
        seen = {pair for other, pair in self.box.votes if other == voter}
        left = next((pair for pair in self.pairs if pair.key not in seen), None)
        return {"done": len(seen & self.by_key.keys()), "total": len(self.pairs)} | (
            {"pair": left.key, "style": left.style, "prompt": left.left["prompt"]} if left else {}
        )

    def vote(self, told: Any) -> dict[str, Any]:
        """Takes a vote {voter, pair, choice}; the same one twice counts once."""
        if not isinstance(told, dict) or set(told) != {"voter", "pair", "choice"} or not all(isinstance(v, str) for v in told.values()):
            raise Refused(HTTPStatus.BAD_REQUEST, "A vote has a voter, a pair and a choice, each of them text.")
        self.voter(told["voter"])
        if told["pair"] not in self.by_key:
            raise Refused(HTTPStatus.NOT_FOUND, "There is no such pair.")
        if told["choice"] not in CHOICES:
            raise Refused(HTTPStatus.BAD_REQUEST, f"A choice is one of {', '.join(CHOICES)}.")
        self.box.put(told["voter"], told["pair"], told["choice"])
        return self.next(told["voter"])

    def voter(self, name: str) -> str:
        if not VOTER.fullmatch(name):
            raise Refused(HTTPStatus.BAD_REQUEST, "A voter is 8 to 64 letters, digits, - or _.")
        return name

    @lru_cache(maxsize=64)  # noqa: B019 - lives as long as the server
    def picture(self, key: str, side: str) -> bytes:
        """A picture as PNG without what it says of itself, which would tell the arms apart."""
        from PIL import Image

        pair = self.by_key.get(key)
        if pair is None or side not in ("left", "right"):
            raise Refused(HTTPStatus.NOT_FOUND, "There is no such picture.")
        with Image.open(self.folder / getattr(pair, side)["image"]) as image:
            plain, held = Image.new("RGB", image.size), io.BytesIO()
            plain.paste(image.convert("RGB"))
        plain.save(held, "PNG")
        return held.getvalue()

    def __hash__(self) -> int:
        return id(self)


class Handler(BaseHTTPRequestHandler):
    """GET / the page, /pair, /picture/KEY/SIDE; POST /vote. Everything else is refused in a sentence."""

    protocol_version, server_version, sys_version = "HTTP/1.1", "guide", ""
    timeout = 20  # of a client that sends nothing
    booth: ClassVar[Booth]

    def do_GET(self) -> None:
        self._answered(self._get)

    def do_HEAD(self) -> None:
        self._answered(self._get)

    def do_POST(self) -> None:
        self._answered(self._post)

    def _get(self) -> tuple[bytes, str]:
        url = urlsplit(self.path)
        if url.path == "/":
            return self._page(), "text/html; charset=utf-8"
        if url.path == "/pair":
            voter = parse_qs(url.query).get("voter", [""])[0]
            return _json(self.booth.next(self.booth.voter(voter)))
        if match := re.fullmatch(r"/picture/([0-9a-f]{24})/(left|right)", url.path):
            return self.booth.picture(*match.groups()), "image/png"
        raise Refused(HTTPStatus.NOT_FOUND, "There is nothing here.")

    def _post(self) -> tuple[bytes, str]:
        body = self._body()
        if urlsplit(self.path).path != "/vote":
            raise Refused(HTTPStatus.NOT_FOUND, "There is nothing here.")
        if (origin := self.headers.get("Origin")) and origin not in {f"http://{host}" for host in self._hosts()}:
            raise Refused(HTTPStatus.FORBIDDEN, "Votes are taken from this page alone.")
        if not secrets.compare_digest(self.headers.get("X-Token", "").encode(), self.booth.token.encode()):
            raise Refused(HTTPStatus.FORBIDDEN, "The page is of another run; load it again.")
        if self.headers.get_content_type() != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "A vote is JSON.")
        try:
            told = json.loads(body)
        except (ValueError, RecursionError):
            raise Refused(HTTPStatus.BAD_REQUEST, "A vote is JSON.") from None
        return _json(self.booth.vote(told))

    def _body(self) -> bytes:
        """Read whole, or the connection is closed, so that no rest of it is taken for the next request."""
        length = self.headers.get("Content-Length", "")
        if self.headers.get("Transfer-Encoding") or not length.isascii() or not length.isdigit():
            self.close_connection = True
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "A vote says how long it is.")
        if len(length) > 9 or int(length) > MOST_BYTES:
            self.close_connection = True
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A vote has at most {MOST_BYTES} bytes.")
        return self.rfile.read(int(length))

    def _hosts(self) -> set[str]:
        port = self.server.server_address[1]
        return {f"{HOST}:{port}", f"localhost:{port}"}

    def _answered(self, answer: Callable[[], tuple[bytes, str]]) -> None:
        status = HTTPStatus.OK
        try:
            # A page of another name that resolves to this machine (DNS rebinding) says that name here.
            if self.headers.get("Host") not in self._hosts():
                self.close_connection = True
                raise Refused(HTTPStatus.FORBIDDEN, "This page answers under its own address alone.")
            body, kind = answer()
        except Refused as refusal:
            status, (body, kind) = refusal.status, _json({"error": refusal.reason})
        except (ConnectionError, TimeoutError):
            self.close_connection = True
            return
        except Exception:  # one bad request must not end the vote of others
            traceback.print_exc()
            status, (body, kind) = HTTPStatus.INTERNAL_SERVER_ERROR, _json({"error": "It could not be answered; the terminal says why."})
        self._send(status, body, kind)

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Frame-Options": "DENY",
            "Content-Security-Policy": "default-src 'none'; img-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; "
            f"script-src 'nonce-{self.booth.token}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        }.items():
            self.send_header(name, value)
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD, POST")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the server refuses before a method is called (another method, a line that is no request) is JSON too."""
        self.close_connection = True
        self.request_version = "HTTP/1.1"  # a line that is no request passes for HTTP/0.9, whose answers have no status
        if code == HTTPStatus.NOT_IMPLEMENTED:
            code, message = HTTPStatus.METHOD_NOT_ALLOWED, "This page takes GET and POST alone."
        status = HTTPStatus(code)
        try:
            self._send(status, *_json({"error": message or status.phrase}))
        except (ConnectionError, TimeoutError):
            return

    def _page(self) -> bytes:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        from guide.comparing.report import FAMILY

        environment = Environment(loader=FileSystemLoader([TEMPLATES, FAMILY]), autoescape=True, undefined=StrictUndefined)
        return environment.get_template("vote.html").render(token=self.booth.token, run=self.booth.folder.name).encode()

    def log_message(self, *_: Any) -> None:
        """Nothing: the terminal is for what counts."""


class Server(ThreadingHTTPServer):
    """A room full of people may press a key at once."""

    daemon_threads, request_queue_size = True, 128


def server(folder: Path, port: int = 0) -> ThreadingHTTPServer:
    """A server of the run's page, bound to the loopback alone and not yet serving."""
    booth = Booth.of(folder)
    try:
        found = Server((HOST, port), type("Bound", (Handler,), {"booth": booth}))
    except OSError as error:
        raise UserError(f"The port {port} cannot be had ({error.strerror}); choose another with --port, or 0 for any.") from None
    return found


def serve(folder: Path, port: int, say: Callable[[str], None]) -> Iterator[str]:
    """Serve until interrupted; then how people and judges agree."""
    found = server(folder, port)
    say(f"Vote at http://{HOST}:{found.server_address[1]}/ (this machine alone). Ctrl-C ends it; votes are kept in {folder / FILE}.")
    try:
        found.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        pass
    finally:
        found.server_close()
    told = agreement(folder)
    yield from told["sentences"] if told else ["No votes were cast."]


def _json(told: Any) -> tuple[bytes, str]:
    return json.dumps(told).encode(), "application/json"
