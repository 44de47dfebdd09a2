"""Every way to debias CLIP's embeddings on one bench: ``python -m debias_utils.bench``.

Fits every method that the data allows, measures what it leaves, writes the table (rows.parquet, leaderboard.csv,
leaderboard.html) and says which methods were left out and why. A run that was stopped goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..debiasers import METHODS
from ..evaluate.engine import ENGINES
from . import files, toonville
from .run import MEASURES, leaderboard, run


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and run the bench."""
    parser = argparse.ArgumentParser(
        prog="python -m debias_utils.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"With --data, {files.LAYOUT}\n\ncolumns:\n" + "\n".join(f"  {name:<22}{what}" for name, what in MEASURES.items()),
    )  # fmt: skip
    parser.add_argument("--data", type=Path, help="a folder with your own embeddings (default: Toonville)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results, of this bench alone")
    parser.add_argument("--attribute", default="gender", choices=toonville.WORDS, help="Toonville: which (default: gender)")
    parser.add_argument("--rho", type=float, default=0.9, help="Toonville: which CLIPs (default: 0.9)")
    parser.add_argument("--profile", default="mini", help="Toonville: the size of the book (default: mini)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, metavar="METHOD", help=f"default: all of {', '.join(METHODS)}")
    parser.add_argument("--k", type=int, default=100, help="how many are retrieved (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of splits, probes and random rankings (default: 0)")
    parser.add_argument("--engine", default="local", choices=ENGINES, help="where methods are fitted (default: this process)")
    parser.add_argument("--workers", type=int, help="of Ray (default: one for each core)")
    options = parser.parse_args(arguments)
    try:
        if options.data is None:
            from ..profiles import load_profile

            parts = load_profile(options.profile, seed=options.seed)
            tasks = {
                f"training {seed}": toonville.task(parts, options.attribute, rho=options.rho, training_seed=seed)
                for seed in parts.training_seeds
            }
        else:
            tasks = {"data": files.task(options.data, seed=options.seed)}
        rows = run(
            tasks, folder=options.out, methods=options.methods, k=options.k, seed=options.seed, engine=options.engine,
            workers=options.workers,
        )  # fmt: skip
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        sys.exit(f"{parser.prog}: {error}")
    table = leaderboard(rows)
    rows.to_parquet(options.out / "rows.parquet")
    table.to_csv(options.out / "leaderboard.csv", index=False)
    table.to_html(options.out / "leaderboard.html", index=False, float_format="{:.3f}".format, na_rep="-")
    print(table[["method", *MEASURES]].to_string(index=False, float_format="{:.3f}".format, na_rep="-"))
    left = rows[rows["left out"] != ""].drop_duplicates("method")
    for method, why in zip(left["method"], left["left out"], strict=True):
        print(f"left out: {method}: {why}")


if __name__ == "__main__":
    main()
