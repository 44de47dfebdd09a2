"""One file from the web: resumed where it stopped, bounded, never put together from two versions.

requests does the transfer: certificates, redirects, and proxies from HTTPS_PROXY and NO_PROXY. pooch, the usual choice for data
files, begins a broken download anew; the downloader of huggingface_hub resumes, but is not part of its interface and does not
ask whether the file is still the same. That question (If-Range, ETag) is what is added here. Nothing here opens a file.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..assets import CACHE_VARIABLE, cannot_write
from .entry import DownloadError, in_words

CHUNK = 2**16  # bytes that a killed process may lose
SLOWEST = 256  # bytes a second, over one timeout: what is slower has stalled
LATER = {408, 425, 429, 500, 502, 503, 504}  # answers that may be better in a while
PATIENCE = 60.0  # seconds that a server may make us wait at once
TRIES = 5  # in a row without a byte


class _LaterError(Exception):
    """Worth another try, after some seconds if the server said so."""

    def __init__(self, reason: str, wait: float | None = None):
        super().__init__(reason)
        self.wait = wait


class _StaleError(Exception):
    """What is on the disk does not belong to what the server has now."""


def download(
    url: str,
    part: Path,
    *,
    known: bool,
    size: int | None = None,
    timeout: float = 30.0,
    pause: float = 1.0,
    progress: bool = True,
) -> bool:
    """Bring the content of an address into the file `part`, continuing what is there.

    Args:
        url: https; plain http only from this machine, or if the content is `known`.
        part: the unfinished file; beside it lies `part`.json, of which version of the file its bytes are.
        known: the whole SHA-256 is known and will be compared. Otherwise bytes are added to others only if the server says that
            they are of the same version.
        size: in bytes, if it is known: a file that is longer or shorter is not fetched.
        timeout: seconds of silence until the connection counts as lost. pause: seconds before the second try, doubled each time.

    Returns:
        True if the file was put together from several answers.

    Raises:
        DownloadError: this source is of no use: no answer after several tries, a refusal, a page or another size instead.
        OSError: the disk is full; what has arrived stays, to be continued.
    """
    import requests

    if urlsplit(url).scheme == "http" and not known and not _is_here(url):
        raise DownloadError(f"{url} is neither encrypted nor is its checksum known: nothing would notice another file")
    from tqdm import tqdm

    with requests.Session() as session, tqdm(unit="B", unit_scale=True, desc=part.stem, disable=not progress) as bar:
        session.max_redirects = 10
        tries = stale = 0
        while True:
            before = _length(part)
            reason: Exception
            try:
                return _continue(session, url, part, bar, known=known, size=size, timeout=timeout)
            except _StaleError as error:
                discard(part)
                stale += 1
                if stale == TRIES:
                    raise DownloadError(f"{url} is another file at every try ({error})") from error
                continue
            except _LaterError as error:
                reason, wait = error, error.wait or 0.0
            except requests.exceptions.TooManyRedirects as error:
                raise DownloadError(f"{url} leads in circles") from error
            except requests.exceptions.SSLError as error:
                raise DownloadError(f"{url} has no valid certificate: {error}") from error
            except requests.exceptions.InvalidSchema as error:
                raise DownloadError(f"{url} leads to something that is not the web: {error}") from error
            except requests.exceptions.RequestException as error:
                reason, wait = error, 0.0
            tries = 1 if _length(part) > before else tries + 1
            if tries >= TRIES:
                raise DownloadError(f"{url} cannot be fetched: {_first_line(reason)}") from reason
            if wait > PATIENCE:
                raise DownloadError(f"{url} asks to wait {wait:.0f} seconds ({reason}); try again then")
            time.sleep(wait or min(pause * 2 ** (tries - 1), PATIENCE))


def discard(part: Path) -> None:
    """Delete an unfinished file and what is known about it."""
    for path in (part, _about(part)):
        path.unlink(missing_ok=True)


def _continue(session: Any, url: str, part: Path, bar: Any, *, known: bool, size: int | None, timeout: float) -> bool:
    """One request: the whole file, or what is missing of it; True if it was added to something."""
    start, about = _length(part), _read(part)
    mark = about.get("mark") if about.get("url") == url else None  # which version the bytes are of
    if start and not known and not mark:
        start = 0
    if start and about.get("total") == start and (mark or known):
        return True
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-"} | ({"If-Range": mark} if mark else {})
    with session.get(url, stream=True, timeout=timeout, headers=headers) as answer:
        _check_hops(url, answer, known=known)
        code = answer.status_code
        if code in LATER:
            raise _LaterError(f"answer {code}", _seconds(answer.headers.get("Retry-After")))
        if code == 416:
            raise _StaleError("the file there is shorter than what has arrived")
        if code not in (200, 206):
            raise DownloadError(f"{url} answers {code} {answer.reason}")
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise DownloadError(f"{url} sends the file in another coding than asked for")
        if not known and "html" in answer.headers.get("Content-Type", ""):
            raise DownloadError(f"{url} answers with a page, not with the file")
        now, total = _mark(answer.headers), _whole(answer.headers.get("Content-Length"))
        if code == 206 and start:
            total = _total(answer.headers.get("Content-Range", ""), start)
            if (mark and now and now != mark) or about.get("total") not in (None, total):
                raise _StaleError("it changed in between")
        else:
            start = 0
        if size is not None and total not in (None, size):
            raise DownloadError(f"{url} has {total} bytes, expected {size}")
        chunked = "chunked" in answer.headers.get("Transfer-Encoding", "").lower()
        if total is None and not chunked and not known:
            raise DownloadError(f"{url} does not say where the file ends: a broken connection would not be noticed")
        _check_space(part, (total or 0) - start)
        bar.total, bar.n = total or size, start
        bar.refresh()
        _receive(answer, part, bar, start=start, about={"url": url, "mark": now, "total": total}, most=size, timeout=timeout)
    if total is not None and _length(part) < total:
        raise _LaterError("the connection broke off")
    return start > 0


def _receive(answer: Any, part: Path, bar: Any, *, start: int, about: dict[str, Any], most: int | None, timeout: float) -> None:
    """Add the bytes of an answer to the file behind `start`."""
    from urllib3.exceptions import HTTPError

    try:
        if not start:  # first what the bytes are of, then the bytes
            discard(part)
            _about(part).write_text(json.dumps(about), "utf-8")
        with open(part, "r+b" if start else "wb", buffering=0) as file:
            file.seek(start)
            file.truncate()
            since, got = time.monotonic(), 0
            while True:
                try:
                    chunk = answer.raw.read1(CHUNK, decode_content=False)
                except HTTPError as error:
                    raise _LaterError(_first_line(error)) from error
                if not chunk:
                    break
                start += len(chunk)
                if most is not None and start > most:
                    raise DownloadError(f"{about['url']} sends more than the {most} bytes of the file")
                _write(file, chunk)
                bar.update(len(chunk))
                got += len(chunk)
                if (spent := time.monotonic() - since) > timeout:
                    if got < SLOWEST * spent:
                        raise _LaterError("the connection has nearly stopped")
                    since, got = time.monotonic(), 0
            os.fsync(file.fileno())
    except DownloadError:
        discard(part)
        raise
    except OSError as error:
        raise cannot_write(part.parent, error) from error


def _write(file: Any, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:  # the system may take less at once
        view = view[file.write(view) :]


def _check_hops(url: str, answer: Any, *, known: bool) -> None:
    """Redirects must not leave encryption, but for files whose checksum is known."""
    for hop in (*answer.history, answer):
        if urlsplit(url).scheme == "https" and urlsplit(hop.url).scheme != "https" and not known:
            raise DownloadError(f"{url} leads to {hop.url}, which is not encrypted")


def _check_space(part: Path, missing: int) -> None:
    part.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(part.parent).free
    if missing > free:
        raise OSError(
            errno.ENOSPC,
            f"{in_words(missing)} are to be fetched and {in_words(free)} are free; make room, or set {CACHE_VARIABLE} to another",
            str(part.parent),
        )


def _mark(headers: Any) -> str | None:
    """What tells one version of a file from another: a strong ETag, or when it was changed."""
    etag = headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


def _total(field: str, start: int) -> int:
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", field.strip())
    if not found or int(found[1]) != start or int(found[2]) + 1 != int(found[3]):
        raise _StaleError(f"asked for the bytes from {start}, the answer has {field or 'no range'}")
    return int(found[3])


def _whole(field: str | None) -> int | None:
    return int(field) if field and field.isdigit() else None


def _seconds(field: str | None) -> float | None:
    """Retry-After: seconds, or a date."""
    if field is None or field.isdigit():
        return float(field) if field else None
    from email.utils import parsedate_to_datetime

    with contextlib.suppress(ValueError, TypeError):
        return max(parsedate_to_datetime(field).timestamp() - time.time(), 0.0)
    return None


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or bool(re.fullmatch(r"127(\.\d+){3}", host))


def _about(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read(part: Path) -> dict[str, Any]:
    try:
        about = json.loads(_about(part).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def _length(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
