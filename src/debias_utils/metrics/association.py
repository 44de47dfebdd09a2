"""Association tests: WEAT (Caliskan et al. 2017), SEAT of sentences (May et al. 2019), iEAT of images (Steed and Caliskan 2021).

Two sets of targets, x and y (such as career and family), and two of attributes, a and b (such as men and women). One test serves
words, sentences and images alike, and across: targets may be images and attributes texts. All are (n, d) embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, combinations, islice
from math import comb
from typing import Any

import numpy as np

from ..arrays import floats
from ..errors import check_choice, check_whole
from ..measured import MeasuredDict, MeasuredFloat
from .scores import cosine_scores

ALTERNATIVES = ("greater", "less", "two-sided")
_SAME = 1e-9  # sums of cosines nearer than this are tied: floats of one exact value differ with the order of summation
_PART = 1 << 20  # places of permuted targets held at once


def association_scores(words: Any, a: Any, b: Any) -> np.ndarray:
    """How much nearer each word is to a than to b: mean cos(w, a) - mean cos(w, b), in [-2, 2].

    Args:
        words: (n, d). a, b: (p, d), (q, d). Of any length; unit-length is not needed.

    Returns:
        (n,) float64.

    Raises:
        ValueError: NaN, infinity, none at all, embeddings of length 0 or of two widths.
    """
    given = {name: floats(name, x, missing=True) for name, x in (("words", words), ("a", a), ("b", b))}
    for name, x in given.items():
        if x.ndim != 2 or not x.size:
            raise ValueError(f"{name} must be (n, d) and not empty, got shape {x.shape}")
    if len({x.shape[1] for x in given.values()}) > 1:
        raise ValueError(f"embeddings must have one width, got {', '.join(f'{name} {x.shape}' for name, x in given.items())}")
    w, first, second = (x.astype(float) for x in given.values())
    means = [np.asarray(cosine_scores(w, x)).mean(axis=0) for x in (first, second)]
    return means[0] - means[1]


def association_test(
    x: Any,
    y: Any,
    a: Any,
    b: Any,
    *,
    alternative: str = "greater",
    n_permutations: int = 10_000,
    seed: int = 0,
    ddof: int = 1,
) -> tuple[MeasuredFloat, MeasuredFloat]:
    """Are x nearer to a, and y nearer to b, than chance would have it? Effect size and p of a permutation test.

    With s = `association_scores`, the effect size is (mean s(x) - mean s(y)) / std of s over x and y. The test asks how many of
    the ways to part the targets into two sets of these sizes have at least this difference of the means; ties count, and so does
    the parting as given. All ways are counted if there are at most `n_permutations`, else so many are drawn (the one as given
    among them), so that p is at least 1 / `n_permutations`.

    Args:
        x, y: (n, d), (m, d) targets. The published tests ask for n = m; another m is fine here. a, b: attributes.
        alternative: "greater", as published: x lean to a; "less": x lean to b, for which "greater" gives a p near 1; "two-sided":
            either, by the size of the difference. For n = m that is twice the smaller of the two others. (Some public code
            compares the size of the sum over x alone, which is no test.)
        n_permutations: partings at most. SEAT's code has 100,000, iEAT's 10,000.
        ddof: 1 as both codes do, or 0, with which the size is larger by sqrt(2n / (2n - 1)).

    Returns:
        (effect size, p). The conventions of both say how p was found ("exact" or "sampled", of how many "partitions"); those of
        the effect size hold "floor", the mean and the central 95 % of effect sizes if the targets are parted at random.

    Raises:
        ValueError: as `association_scores`; targets that are all associated equally; an unknown alternative.
    """
    check_choice("alternative", alternative, ALTERNATIVES)
    check_whole("n_permutations", n_permutations)
    check_whole("seed", seed, at_least=0)
    check_whole("ddof", ddof, at_least=0, at_most=1)
    targets = [floats(name, t, missing=True) for name, t in (("x", x), ("y", y))]
    for name, t in zip("xy", targets, strict=True):
        if t.ndim != 2 or not t.size or t.shape[1] != targets[0].shape[1]:
            raise ValueError(f"{name} must be (n, d), of one width and not empty, got x {targets[0].shape}, y {targets[1].shape}")
    s = association_scores(np.concatenate(targets), a, b)
    n, m = map(len, targets)
    spread = s.std(ddof=ddof)
    if not spread > _SAME:
        raise ValueError(f"all {n + m} targets are associated equally with a and b: there is no spread to measure by")

    def difference(of_x: np.ndarray) -> np.ndarray:  # of the means, from the sum over x
        return of_x / n - (s.sum() - of_x) / m

    total = comb(n + m, n)
    exact = total <= n_permutations
    parted = difference(_sums(s, n, total if exact else n_permutations - 1, exact, seed))
    found = float(difference(s[:n].sum()))
    if not exact:
        parted = np.append(parted, found)
    tied = _SAME * (1 / n + 1 / m)
    extreme = {
        "greater": parted >= found - tied,
        "less": parted <= found + tied,
        "two-sided": np.abs(parted) >= abs(found) - tied,
    }[alternative]
    low, high = np.quantile(parted / spread, [0.025, 0.975])
    how = {"alternative": alternative, "p": "exact" if exact else "sampled", "partitions": len(parted), "ddof": ddof}
    size, p = MeasuredFloat(found / spread), MeasuredFloat(np.count_nonzero(extreme) / len(parted))
    size.conventions = {
        "metric": "association effect size", **how,
        "floor": {"mean": float((parted / spread).mean()), "low": float(low), "high": float(high)},
    }  # fmt: skip
    p.conventions = {"metric": "association p", **how}
    return size, p


def association_tests(images: Sequence[Any], texts: Sequence[Any], **options: Any) -> MeasuredDict:
    """The same test within each modality and across them, as Zhang's iEAT tables have it (seed 003).

    Args:
        images: (x, y, a, b) as image embeddings. texts: the same four as text embeddings. options: those of `association_test`.

    Returns:
        {"ii", "tt", "it", "ti": (effect size, p)}: first the modality of the targets, then that of the attributes.
    """
    sets = {"i": list(images), "t": list(texts)}
    for name, four in sets.items():
        if len(four) != 4:
            raise ValueError(f"{'images' if name == 'i' else 'texts'} must be four sets (x, y, a, b), got {len(four)}")
    result = MeasuredDict({i + j: association_test(*sets[i][:2], *sets[j][2:], **options) for i, j in ("ii", "tt", "it", "ti")})
    result.conventions = {"metric": "association tests", "order": "modality of the targets, then of the attributes"}
    return result


def _sums(s: np.ndarray, n: int, count: int, exact: bool, seed: int) -> np.ndarray:
    """(count,) sums of s over n targets: of every set of n, or of sets drawn at random."""
    rng, step = np.random.default_rng(seed), max(1, _PART // len(s))
    sums: list[np.ndarray] = [np.empty(0)]
    sets: Iterator[tuple[int, ...]] = combinations(range(len(s)), n)
    for start in range(0, count, step):
        size = min(step, count - start)
        if exact:
            chosen = np.fromiter(chain.from_iterable(islice(sets, size)), int, size * n).reshape(size, n)
        else:
            chosen = rng.random((size, len(s))).argsort(axis=1)[:, :n]
        sums.append(s[chosen].sum(axis=1))
    return np.concatenate(sums)
