"""The kernel that runs the chapters: this very Python, whatever is installed under the name `python3`, and few threads."""

from __future__ import annotations

import os

from ipykernel.kernelspec import make_ipkernel_cmd
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec

LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS")


def threads() -> str:
    """Threads of a chapter: one unless OMP_NUM_THREADS says otherwise, however many chapters run side by side.

    The last bits of a sum depend on its threads; a chapter's numbers must not depend on how busy the machine is.
    """
    return os.environ.get("OMP_NUM_THREADS") or "1"


class ThisPython(AsyncKernelManager):
    """Starts a kernel of the running interpreter; a kernel spec of another environment would lack the book's module."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """The spec of the running interpreter; no folder is looked into."""
        limits = {name: os.environ.get(name) or threads() for name in LIMITS}
        return KernelSpec(argv=make_ipkernel_cmd(), env=limits, display_name="Python 3", language="python")
