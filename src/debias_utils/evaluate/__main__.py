"""Compute the rows behind the tables on editing: ``python -m debias_utils.evaluate`` (part of ``make book``).

What an earlier run has finished is not computed again.
"""

from __future__ import annotations

import argparse
import time

from .. import assets
from ..profiles import PROFILES, load_profile
from . import agreement, instruct_table, table


def main(arguments: list[str] | None = None) -> None:
    """Compute and keep the rows of every CLIP and editor that the chapters compare, and say where they are."""
    parser = argparse.ArgumentParser(prog="python -m debias_utils.evaluate", description=__doc__)
    parser.add_argument("--profile", default="mini", choices=PROFILES, help="the size of the book (default: mini)")
    parser.add_argument("--seed", type=int, default=0, help="of the people and the samples (default: 0)")
    parser.add_argument("--device", default="auto", help="default: a GPU if there is one")
    parser.add_argument("--trainings", type=int, nargs="*", metavar="SEED", help="of the CLIPs; default: all of the profile")
    options = parser.parse_args(arguments)
    parts = load_profile(options.profile, seed=options.seed, device=options.device)
    for rho in table.RHOS:
        for training in options.trainings or parts.training_seeds:
            start = time.perf_counter()
            found = table.rows(parts, rho=rho, training_seed=training)
            print(f"rho {rho:g}, training {training}: {len(found):,} edits, {time.perf_counter() - start:.0f} s", flush=True)
    for rho in parts.editor_rhos:
        start = time.perf_counter()
        found = instruct_table.rows(parts, rho=rho)
        print(f"instructions, rho {rho:g}: {len(found):,} edits, {time.perf_counter() - start:.0f} s", flush=True)
    start = time.perf_counter()
    agreement.relevances(parts)
    print(f"relevance by every way: {time.perf_counter() - start:.0f} s; all kept in {assets.cache_dir() / 'tables'}", flush=True)


if __name__ == "__main__":
    main()
