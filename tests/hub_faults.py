"""What can go wrong between a client and a server, and the handler of requests that lets it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Fault:
    """What to answer instead, to requests whose "METHOD path" contains a text."""

    where: str
    status: int = 0
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    hang: threading.Event | None = None
    alter: Callable[[dict[str, str], bytes], tuple[dict[str, str], object]] | None = None
    """Of the right answer's headers and body makes those that are sent; a body may be an iterator,
    which ends with a closed connection."""
    times: int = 1_000_000


class FaultyHandler(BaseHTTPRequestHandler):
    hub: Any
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):
        pass

    def do_GET(self):
        self._serve()

    do_HEAD = do_POST = do_PUT = do_GET

    # Answers

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        self.route, self.query = unquote(parts.path), parts.query
        line = f"{self.command} {self.route}"
        self.hub.asked.append(line)
        self.hub.agents.add(self.headers.get("User-Agent", ""))
        length = int(self.headers.get("Content-Length") or 0)
        self.content = self.rfile.read(length) if length else self._chunks()
        fault = next((f for f in self.hub.faults if f.where in line and f.times > 0), None)
        if fault is not None:
            fault.times -= 1
            if fault.hang is not None:
                fault.hang.wait(30)
                self.close_connection = True
                return
        status, headers, body = self._answer()
        if fault is not None and fault.status:
            status, headers, body = fault.status, dict(fault.headers), fault.body
        if fault is not None and fault.alter is not None:
            headers, body = fault.alter({"Content-Length": str(len(body)), **headers}, body)
        with suppress(ConnectionError):  # the client has gone
            self._send(status, headers, body)

    def _send(self, status: int, headers: dict[str, str], body) -> None:
        self.send_response(status)
        is_odd = not isinstance(body, bytes)
        for name, value in headers.items():
            self.send_header(name, value)
        if not is_odd and "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        if is_odd:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command == "HEAD":
            return
        for piece in [body] if not is_odd else body:
            self.wfile.write(piece)
            self.hub.sent += len(piece)

    def _chunks(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return b""
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _json(self, record, status: int = 200):
        return status, {"Content-Type": "application/json"}, json.dumps(record).encode()

    def _refuse(self, status: int, message: str, code: str | None = None):
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        return status, headers, json.dumps({"error": message}).encode()

    def _answer(self):
        raise NotImplementedError
