"""The first k of rankings: of scores in an array, or of scores that come block by block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ..arrays import array, labels, numbers
from ..errors import check_choice, check_whole
from ._results import carried, check_k

TIE_RULES = ("order", "all")
_BLOCK = 1 << 19  # scores ranked at once: bounds the working memory whatever the number of queries
_TAKEN = 1 << 22  # scores of a block that are looked at at once


class Scores:
    """Scores (m, n) that are all there, and the groups of the items."""

    def __init__(self, scores: Any, groups: Any):
        self.scores, self.names, self.codes, self.single, self.conventions = validate(scores, groups)
        self.queries, self.items = self.scores.shape
        self.sizes = np.bincount(self.codes)  # (groups,)

    def counts(self, k: int, ties: str) -> np.ndarray:
        """(m, groups) people of each group in the top k. Only the k-th score is looked for; nothing is sorted."""
        check_choice("tie rule", ties, TIE_RULES)
        kinds = len(self.names)
        counts = np.empty((self.queries, kinds), int)
        for start, block in _blocks(self.scores):
            kth = np.partition(block, -k, axis=1)[:, -k, None]  # (b, 1)
            query, item = np.nonzero(block >= kth)
            found = np.bincount(query * kinds + self.codes[item], minlength=len(block) * kinds).reshape(len(block), -1)
            if ties == "order":
                for row in np.flatnonzero(found.sum(axis=1) > k):  # of those tied at the cut, the last ones do not count
                    surplus = np.flatnonzero(block[row] == kth[row])[k - found[row].sum() :]
                    found[row] -= np.bincount(self.codes[surplus], minlength=kinds)
            counts[start : start + len(block)] = found
        return counts

    def best_first(self, k: int, ties: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(queries (b,), codes of their first ones (b, l)), for as many of the queries as have one length l: k or, tied, more."""
        for start, order, kept in ranked(self.scores, k, ties):
            for length in np.unique(kept):
                rows = np.flatnonzero(kept == length)
                own = order if len(rows) == len(order) else order[rows]  # a copy takes as long as the rest
                yield start + rows, self.codes[own[:, :length]]


class RunningTop:
    """The first k of m rankings while scores come block by block: memory for m x k scores, whatever the number of items.

    Give it in place of scores, with None in place of groups, to `skew_at_k`, `max_skew_at_k`, `min_skew_at_k`, `kl_at_k`,
    `bias_at_k`, `explicit_query_precision`, `ndkl` (up to k) and `random_floor`. Those functions also take an iterator of blocks,
    and then make one of these, for the one metric::

        top = RunningTop(1000)
        for images, groups in parts_of_the_pool:
            top.add(cosine_scores(images, prompts), groups)
        max_skew_at_k(top, None, 1000), ndkl(top, None, k=1000)

    Args:
        k: how many to keep of each ranking; metrics at any smaller k can be asked for too, with ties="order".
        ties: at the k-th place, keep the first that came ("order"), or count "all" tied items: at this k alone, not for `ndkl`.
    """

    single = False

    def __init__(self, k: int, *, ties: str = "order"):
        check_choice("tie rule", ties, TIE_RULES)
        self.k, self.ties = check_whole("k", k), ties
        self.names: list[Any] = []
        self.sizes = np.zeros(0, int)
        self.conventions: dict[str, Any] = {}
        self._best, self._codes, self._tied = np.empty((0, 0)), np.empty((0, 0), int), np.empty((0, 0), int)
        self._waiting: list[tuple[np.ndarray, ...]] = []
        self._taken = 0

    @property
    def queries(self) -> int:
        """How many rankings there are."""
        return len(self._best)

    @property
    def items(self) -> int:
        """How many items came."""
        return int(self.sizes.sum())

    def add(self, scores: Any, groups: Any) -> RunningTop:
        """Take the next b items: scores (m, b), or (b,) for one query, and groups (b,).

        Raises:
            ValueError: as `skew_at_k`; another number of queries than before.
        """
        block, names, codes, single, conventions = validate(scores, groups)
        if not self.items:
            self.single, self.conventions = single, conventions
            self._best, self._codes = block[:, :0], np.empty((len(block), 0), int)
            self._tied = np.zeros((len(block), 0), int)
        if len(block) != self.queries:
            raise ValueError(f"every block needs scores of the same {self.queries} queries, got {len(block)}")
        place = {name: i for i, name in enumerate(self.names)}
        self.names += [name for name in names if name not in place]
        place = {name: i for i, name in enumerate(self.names)}
        codes = np.array([place[name] for name in names])[codes]
        more = len(self.names) - len(self.sizes)
        self.sizes = np.pad(self.sizes, (0, more)) + np.bincount(codes, minlength=len(self.names))
        self._tied = np.pad(self._tied, ((0, 0), (0, more)))
        start = 0
        while start < len(codes):  # at first no more than there are already: the higher the k-th score, the fewer pass it
            end = start + min(max(1, _TAKEN // len(block)), max(self.k, self._taken))
            self._take(block[:, start:end], codes[start:end])
            self._taken += len(codes[start:end])
            start = end
        return self

    def _take(self, block: np.ndarray, codes: np.ndarray) -> None:
        if self._best.shape[1] < self.k:
            rows, items = (x.ravel() for x in np.indices(block.shape, dtype=np.int32))
        else:  # what comes later has to be higher, or tied if those are counted
            hit = (np.greater_equal if self.ties == "all" else np.greater)(block, self._best[:, -1:])
            rows, items = np.divmod(np.flatnonzero(hit), block.shape[1])
        self._waiting.append((rows, block[rows, items], codes[items]))
        # Few come near the end of a long ranking: so let them wait, and compare with a k-th score of a while ago.
        if self._best.shape[1] < self.k or sum(len(rows) for rows, _, _ in self._waiting) > self._best.size:
            self._settle()

    def _settle(self) -> None:
        """Let those that wait into the top."""
        if not self._waiting:
            return
        rows, scores, codes = (np.concatenate(x) for x in zip(*self._waiting, strict=True))
        self._waiting = []
        by_row = np.argsort(rows, kind="stable")  # of one row, the first that came stays first
        ends = np.searchsorted(rows[by_row], np.arange(self.queries + 1))
        held = self._best.shape[1]
        keep = min(self.k, held + int(ends[1] - ends[0]))  # until k are held, all come, of every row as many
        best, own = np.empty((self.queries, keep), np.result_type(self._best, scores)), np.empty((self.queries, keep), int)
        for row in range(self.queries):
            new = by_row[ends[row] : ends[row + 1]]
            found, kind = np.concatenate([self._best[row], scores[new]]), np.concatenate([self._codes[row], codes[new]])
            first = _first(found, keep)
            best[row], own[row] = found[first], kind[first]
            if self.ties == "all":
                last = best[row, -1]
                if held == self.k and last == self._best[row, -1]:  # those that came before are counted already
                    found, kind = found[held:], kind[held:]
                else:
                    self._tied[row] = 0
                self._tied[row] += np.bincount(kind[found == last], minlength=len(self.names))
        self._best, self._codes = best, own

    def counts(self, k: int, ties: str) -> np.ndarray:
        """(m, groups) people of each group in the top k."""
        self._check(k, ties)
        kinds = len(self.names)
        codes = self._codes[:, :k]
        if ties == "all":
            codes = np.where(self._best > self._best[:, -1:], codes, kinds)
        rows = np.arange(self.queries)[:, None] * (kinds + 1)
        counts = np.bincount((rows + codes).ravel(), minlength=self.queries * (kinds + 1)).reshape(self.queries, -1)[:, :-1]
        return counts + self._tied if ties == "all" else counts

    def best_first(self, k: int, ties: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """As `Scores.best_first`; the order of tied items beyond the k-th place is not kept."""
        if ties == "all":
            raise ValueError("NDKL of scores in blocks knows ties='order' alone: it does not keep items beyond the k-th place")
        self._check(k, ties)
        yield np.arange(self.queries), self._codes[:, :k]

    def shuffled(self, repeats: int, rng: np.random.Generator) -> RunningTop:
        """The tops of as many random rankings of the same pool, without drawing scores for all of its items."""
        top = RunningTop(self.k, ties="order")
        top.names, top.sizes = self.names, self.sizes
        counts = rng.multivariate_hypergeometric(self.sizes, self.k, size=repeats, method="marginals")
        codes = np.repeat(np.tile(np.arange(len(self.names)), repeats), counts.ravel()).reshape(repeats, self.k)
        top._codes = rng.permuted(codes, axis=1)
        top._best = np.broadcast_to(np.arange(self.k, 0, -1.0), codes.shape)
        return top

    def _check(self, k: int, ties: str) -> None:
        check_choice("tie rule", ties, TIE_RULES)
        if k > self.k or ties != self.ties or (ties == "all" and k < self.k):
            raise ValueError(f"this top holds k = {self.k} with ties={self.ties!r}, got k = {k} with ties={ties!r}")
        self._settle()


def rankings(scores: Any, groups: Any, k: Any, ties: str) -> Scores | RunningTop:
    """Scores in any form: an array (n,) or (m, n), an iterator of blocks (m, b), or a `RunningTop`."""
    if isinstance(scores, RunningTop):
        if groups is not None:
            raise ValueError("a RunningTop knows the groups of its items: give None in place of groups")
        if not scores.items:
            raise ValueError("no item was added to this RunningTop")
        return scores
    if not isinstance(scores, Iterator):
        return Scores(scores, groups)
    if k is None:
        raise ValueError("scores in blocks need k: only the first k of a ranking are kept")
    top = RunningTop(k, ties=ties)
    for block, own in with_groups(scores, groups):
        top.add(block, own)
    if not top.items:
        raise ValueError("scores must be (n,) or (m, n) and not empty, got no block")
    return top


def with_groups(blocks: Iterable[Any], groups: Any) -> Iterator[tuple[Any, Any]]:
    """Each block of scores (m, b) with the groups (b,) of its items, out of an array (n,) or an iterator of such blocks."""
    if isinstance(groups, Iterator):
        nothing = object()
        for block in blocks:
            own = next(groups, nothing)
            if own is nothing:
                raise ValueError("groups end before the scores do")
            yield block, own
        if next(groups, nothing) is not nothing:
            raise ValueError("groups go on where the scores have ended")
        return
    # a list of words with something missing would become an array of words, one of which is "nan"
    groups, start = np.array(groups, dtype=object) if isinstance(groups, (list, tuple)) else array(groups), 0
    for block in blocks:
        end = start + array(block).shape[-1]
        yield block, groups[start:end]
        start = end
    if start != len(groups):
        raise ValueError(f"groups must be ({start},), one label for each score, got ({len(groups)},)")


def validate(scores: Any, groups: Any) -> tuple[np.ndarray, list, np.ndarray, bool, dict[str, Any]]:
    """Scores (m, n), labels, codes (n,) of the groups, was it one query, the conventions that the scores carry."""
    scores, single, inherited = validate_scores(scores)
    names, codes = labels("groups", groups, n=scores.shape[1])
    return scores, names, codes.astype(np.int16 if len(names) < 2**15 else np.int32), single, inherited


def validate_scores(scores: Any) -> tuple[np.ndarray, bool, dict[str, Any]]:
    """Scores (m, n), was it one query, the conventions that the scores carry."""
    inherited = carried(scores)
    scores = array(scores)
    single = scores.ndim == 1
    if single:
        scores = scores[None]
    if scores.ndim != 2 or scores.size == 0:
        raise ValueError(f"scores must be (n,) or (m, n) and not empty, got shape {scores.shape[1:] if single else scores.shape}")
    return numbers("scores", scores, axes=("query", "item")), single, inherited


def retrieved(scores: Any, k: int) -> np.ndarray:
    """Which items are among the first k: (n,) scores to (n,) bool, (m, n) to (m, n). Ties keep the order of the input.

    Raises:
        ValueError: as `skew_at_k`.
    """
    scores, single, _ = validate_scores(scores)
    k = check_k(k, scores.shape[1])
    top = np.zeros(scores.shape, bool)
    for start, order, _ in ranked(scores, k, "order"):
        np.put_along_axis(top[start : start + len(order)], order[:, :k], True, axis=1)
    return top[0] if single else top


def _blocks(scores: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """A few queries at a time: (first query, their scores)."""
    rows = max(1, _BLOCK // scores.shape[1])
    for start in range(0, len(scores), rows):
        yield start, scores[start : start + rows]


def ranked(scores: np.ndarray, k: int, ties: str) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Blocks of queries: (first query, items by falling score (b, n), how many of them count (b,))."""
    check_choice("tie rule", ties, TIE_RULES)
    for start, block in _blocks(scores):
        order = _order(block)
        kept = np.full(len(block), k)
        if ties == "all":
            kept = (block >= np.take_along_axis(block, order[:, k - 1 : k], axis=1)).sum(axis=1)
        yield start, order, kept


def _first(scores: np.ndarray, k: int) -> np.ndarray:
    """Places of the k highest of (n,) scores, best first, tied ones in their order."""
    if len(scores) > 4 * k:
        places = np.flatnonzero(scores >= np.partition(scores, -k)[-k])
        return places[_order(scores[None, places])[0, :k]]
    return _order(scores[None])[0, :k]


def _order(block: np.ndarray) -> np.ndarray:
    """(b, n) items by falling score, tied ones in the order of the input."""
    if block.dtype.kind != "f":  # the negative of unsigned numbers and of Booleans has another order
        return block.shape[1] - 1 - np.argsort(block[:, ::-1], axis=1, kind="stable")[:, ::-1]
    if block.dtype != np.float32:
        return np.argsort(-block, axis=1, kind="stable")
    # NumPy sorts integers many times faster than it finds a stable order: so sort (score, item) as one integer. The bits
    # of a float are ordered as a signed integer once those below the sign are flipped for negative numbers.
    bits = (0.0 - block).view(np.int32)  # 0.0 - x has no negative zero, which would part ties
    packed = (bits ^ (bits >> 31 & 0x7FFFFFFF)).astype(np.int64) << 32 | np.arange(block.shape[1])
    packed.sort(axis=1)
    return packed & 0xFFFFFFFF
