"""Kill a fetch at random moments, again and again; `python tests/checkpoints/kills.py 50` does it 50 times, of both kinds."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from misbehaving import Server, content, one

from debias_utils import checkpoints
from debias_utils.checkpoints.place import root

DATA = content(6_000_000)
FETCH = """
import sys
from misbehaving import one, content
from debias_utils import checkpoints
data = content(6_000_000) if sys.argv[2] == "known" else None
print(checkpoints.fetch("model", progress=False, pause=0.01, registry=one(sys.argv[1], data)))
"""


def start(server, kind):
    """A process that fetches DATA, with its checksum "known" or "unknown"."""
    command = [sys.executable, "-c", FETCH, server.url, kind]
    return subprocess.Popen(command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def registry(server, kind):
    return one(server.url, DATA if kind == "known" else None)


def kill_at_random(server, kind, kills, *, seed, seconds=2.0):
    """Kill a fetch of some seconds again and again, then let one end; returns the bytes that were there after each kill.

    Asserts that the file has its own name only when it is whole, and that each request went on exactly where the killed process
    had stopped: not one byte that lay on the disk was asked for again.
    """
    server.files["/model.bin"], server.slowly = DATA, seconds / (len(DATA) / 2**16)
    rng, lengths, wanted = random.Random(seed), [0], []
    for _ in range(kills):
        process, asked, begun = start(server, kind), len(server.asked), time.monotonic()
        while len(server.asked) == asked and process.poll() is None and time.monotonic() < begun + 60:
            time.sleep(0.005)
        time.sleep(rng.random() * seconds * min(1.2, 3 / kills))  # at any moment, the first byte and beyond the last among them
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        wanted += [lengths[-1]] * (len(server.asked) - asked)
        part, final = root() / "model" / "model.bin.part", root() / "model" / "model.bin"
        if final.exists():
            assert final.read_bytes() == DATA
        lengths.append(len(DATA) if final.exists() else part.stat().st_size if part.exists() else 0)
    asked = len(server.asked)
    path = checkpoints.fetch("model", progress=False, registry=registry(server, kind))
    assert path.read_bytes() == DATA
    assert lengths == sorted(lengths), lengths
    wanted += [lengths[-1]] * (len(server.asked) - asked)
    assert [each.start for each in server.asked] == wanted, (server.asked, wanted)
    assert [each.name for each in path.parent.iterdir() if ".part" in each.name] == []
    return lengths[1:]


if __name__ == "__main__":
    for kind in ("known", "unknown"):
        for round_ in range(int(sys.argv[1]) // 10):
            with tempfile.TemporaryDirectory() as folder, Server() as server:
                os.environ["DEBIAS_UTILS_CACHE"] = folder
                print(kind, kill_at_random(server, kind, 10, seed=round_), flush=True)
