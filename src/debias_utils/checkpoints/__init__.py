"""Public checkpoints: what there is, under which licence, and how it comes onto this machine; `python -m debias_utils.assets`.

entry.py describes a checkpoint and registry.py is the table of them. store.py is the way in: `fetch` and `verify`, one process at
a time. job.py is one fetch, from the disk, an installed package, the web (transfer.py, archive.py) or the hub (hub.py); what
arrives is compared with what is published, else trusted on first use, and only then gets its name (place.py). door.py is the
command.
"""

from .entry import DownloadError, Entry, Hub, Licence, LicenceNotAcceptedError, Web, WrongContentError
from .registry import REGISTRY
from .store import accept, fetch, files, state, verify

__all__ = [
    "REGISTRY",
    "DownloadError",
    "Entry",
    "Hub",
    "Licence",
    "LicenceNotAcceptedError",
    "Web",
    "WrongContentError",
    "accept",
    "fetch",
    "files",
    "state",
    "verify",
]
