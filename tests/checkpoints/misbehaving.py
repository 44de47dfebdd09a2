"""A web server on a loopback address that does to each request what a test tells it, and keeps a list of what was asked."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from debias_utils.checkpoints import Entry, Licence, Web

FREE = Licence("free", "For any use.", "https://example.org/free")
RESEARCH = Licence("research", "Commercial use is forbidden.", "https://example.org/research", commercial=False)


def content(size, seed=0):
    return np.random.default_rng(seed).bytes(size)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def entry(*parts, name="model", licence=FREE):
    return Entry(name=name, title="A model", use="a test", licence=licence, page="https://example.org/model", parts=parts)


def table(*entries):
    return {each.name: each for each in entries}


def one(url, data=None, **options):
    """A registry with one entry of one file; its checksum is known if `data` are given."""
    known = {"sha256": sha256(data)} if data is not None else {}
    return table(entry(Web("model.bin", (f"{url}/model.bin",), **known, **options)))


@dataclass
class Asked:
    path: str
    start: int  # of the range; 0 where the whole file was asked for
    sent: int = 0  # bytes of the body


@dataclass
class Server:
    """`files`: {path: content}. `plan`: {path: what to do with its first, second, ... request}; afterwards "ok"."""

    files: dict[str, bytes] = field(default_factory=dict)
    plan: dict[str, list] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    marks: bool = True  # send an ETag
    slowly: float = 0.0  # seconds for each 64 kB
    special: dict[str, dict[str, str]] = field(default_factory=dict)  # {path: headers}

    def __enter__(self):
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                server.answer(self)

            def do_HEAD(self):
                server.answer(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.handle_error = lambda *_: None  # a client that went away
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.closing = threading.Event()
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()

    def answer(self, request):
        path = request.path.split("?")[0]
        plan = self.plan.get(path, [])
        todo = plan.pop(0) if plan else "ok"
        kind, *more = todo if isinstance(todo, tuple) else (todo,)
        found = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        asked = Asked(path, int(found[1]) if found else 0)
        self.asked.append(asked)
        if kind == "status":
            return self.head(request, more[0], more[1] if len(more) > 1 else {}, b"")
        if kind == "redirect":
            return self.head(request, 302, {"Location": more[0]}, b"")
        if kind == "swap":
            self.files[path] = more[0]
        if path not in self.files:
            return self.head(request, 404, {}, b"")
        data = self.files[path]
        etag = f'"{hashlib.md5(data).hexdigest()}"'
        headers = {
            "Content-Type": "application/octet-stream",
            **self.special.get(path, {}),
            **({"ETag": etag} if self.marks else {}),
        }
        start = asked.start if request.headers.get("If-Range", etag) == etag or kind == "blind" else 0
        if start > len(data):
            return self.head(request, 416, {}, b"")
        if kind == "whole":  # knows no ranges
            start = 0
        code = 206 if start else 200
        if start:
            first = start + (7 if kind == "shifted" else 0)
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        body = data[start:]
        if kind == "flip":  # one bit of the last byte
            body = body[:-1] + bytes([body[-1] ^ 1])
        if kind == "page":
            headers["Content-Type"] = "text/html"
        if kind == "gzip":
            headers["Content-Encoding"] = "gzip"
        if kind == "shorter":
            body = body[:-5]
        if kind in ("chunked", "chunked cut"):
            headers["Transfer-Encoding"] = "chunked"
        elif kind == "endless":
            request.close_connection = True
        else:
            headers["Content-Length"] = str(len(body))
        self.head(request, code, headers, None)
        if request.command == "HEAD":
            return None
        limit = more[0] if kind in ("cut", "stall", "trickle", "chunked cut", "endless") and more else len(body)
        try:
            self.send(request, body[:limit], asked, chunked="chunked" in kind)
            if kind == "chunked":
                request.wfile.write(b"0\r\n\r\n")
            elif kind in ("cut", "chunked cut"):
                request.close_connection = True
            elif kind in ("stall", "trickle"):
                while not self.closing.wait(0.2):
                    if kind == "trickle":
                        self.send(request, body[limit : limit + 1], asked, chunked=False)
                        limit += 1
        except OSError:  # the client has gone
            request.close_connection = True
        return None

    def send(self, request, body, asked, *, chunked):
        for i in range(0, len(body), 2**16):
            piece = body[i : i + 2**16]
            request.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            request.wfile.flush()
            asked.sent += len(piece)
            if self.slowly:
                time.sleep(self.slowly)

    @staticmethod
    def head(request, code, headers, body):
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name, value)
        if body is not None:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
