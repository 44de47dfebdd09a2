import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from debias_utils.debias import BiasSubspace, debias_delta, printed_projection

D = 24


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def random_sets(seed=0, sizes=(2, 2, 3, 4), d=D):
    rng = np.random.default_rng(seed)
    return [unit(rng.standard_normal((m, d))) for m in sizes]


def planted_pairs(axis, n=10, noise=0.02, seed=0):
    """Pairs that differ along the axis, and a little in everything."""
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((n, 1, len(axis)))
    return list(base + np.array([[[0.5], [-0.5]]]) * axis + noise * rng.standard_normal((n, 2, len(axis))))


def projector(subspace):
    return subspace.basis.T @ subspace.basis


X = unit(np.random.default_rng(9).standard_normal((5, D)))


def test_planted_direction_is_found_and_the_pair_becomes_alike():
    axis = unit(np.random.default_rng(1).standard_normal(D))
    subspace = BiasSubspace.fit(planted_pairs(axis), n_components=1)
    assert abs(subspace.basis[0] @ axis) > 0.99
    assert subspace.explained[0] > 0.9
    text = X[0] + 0.5 * axis
    assert unit(text) @ axis > 0.3
    debiased = BiasSubspace.span(axis[None]).project_out(text)
    assert debiased @ axis == pytest.approx(debiased @ -axis, abs=1e-12)


def test_two_planted_axes_need_two_components():
    axes = unit(np.random.default_rng(2).standard_normal((2, D)))
    sets = planted_pairs(axes[0]) + planted_pairs(axes[1], seed=1)
    assert np.linalg.norm(BiasSubspace.fit(sets, n_components=2).project_out(axes, normalize=False)) < 0.05
    assert np.linalg.norm(BiasSubspace.fit(sets, n_components=1).project_out(axes, normalize=False)) > 0.5
    assert len(BiasSubspace.fit(sets, n_components=0.95).basis) == 2


def test_components_by_share_of_the_variance():
    e = np.eye(4)
    sets = [np.stack([a * e[i], -a * e[i]]) for i, a in enumerate((3.0, 2.0, 1.0))]  # shares 9, 4 and 1 of 14
    assert BiasSubspace.fit(sets, n_components=1).explained == pytest.approx(np.array([9, 4, 1]) / 14)
    for share, components in ((0.5, 1), (9 / 14 - 1e-9, 1), (9 / 14 + 1e-9, 2), (0.92, 2), (0.93, 3), (1 - 1e-12, 3)):
        assert len(BiasSubspace.fit(sets, n_components=share).basis) == components


def test_rank_is_that_of_the_residuals():
    full = BiasSubspace.fit(random_sets(), n_components=1 + 1 + 2 + 3)
    assert full.basis.shape == (7, D)
    assert full.explained.shape == (7,)
    assert np.allclose(full.basis @ full.basis.T, np.eye(7), atol=1e-12)
    residuals = np.concatenate([s - s.mean(axis=0) for s in random_sets()])
    assert np.allclose(full.project_out(residuals, normalize=False), 0, atol=1e-12)
    copies = [s.astype(np.float32) for s in random_sets(sizes=(2, 3)) * 2]
    copies[2] = copies[2] + np.float32(3e-8)  # rounding is no direction
    assert len(BiasSubspace.fit(copies, n_components=3).explained) == 3


def test_no_component_removes_nothing():
    nothing = BiasSubspace.fit(random_sets(), n_components=0)
    assert nothing.basis.shape == (0, D)
    assert np.array_equal(nothing.project_out(X, normalize=False), X)
    assert nothing.join(nothing).basis.shape == (0, D)
    some = BiasSubspace.fit(random_sets(), n_components=3)
    assert np.allclose(projector(nothing.join(some)), projector(some), atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(2, 4), min_size=1, max_size=5), st.integers(0, 10_000), st.floats(0.05, 20))
def test_projection_is_a_projection(sizes, seed, scale):
    sets = random_sets(seed, sizes)
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, sum(sizes) - len(sizes) + 1))
    subspace = BiasSubspace.fit(sets, n_components=k)
    x, y = 3 * rng.standard_normal((2, 7, D))
    once = subspace.project_out(x, normalize=False)
    assert np.allclose(subspace.project_out(once, normalize=False), once, atol=1e-12)
    assert np.allclose(once @ subspace.basis.T, 0, atol=1e-12)
    assert np.allclose(subspace.project_out(2 * x - y, normalize=False), 2 * once - subspace.project_out(y, normalize=False))
    assert (np.linalg.norm(once, axis=1) <= np.linalg.norm(x, axis=1)).all()
    normal = subspace.project_out(x)
    assert np.allclose(normal, unit(once), atol=1e-12)
    assert np.allclose(subspace.project_out(normal), normal, atol=1e-12)
    # neither the basis within the subspace nor the scale or place of the embeddings plays a part
    mixed = rng.standard_normal((k, k)) @ subspace.basis
    assert np.allclose(projector(BiasSubspace.span(mixed, tolerance=1e-9)), projector(subspace), atol=1e-6)
    moved = BiasSubspace.fit([scale * s + y[0] for s in sets], n_components=k)
    assert np.allclose(moved.explained, subspace.explained, atol=1e-9)
    if k == len(subspace.explained) or subspace.explained[k - 1] - subspace.explained[k] > 1e-3:
        assert np.allclose(projector(moved), projector(subspace), atol=1e-7)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 4), st.integers(1, 4), st.integers(0, 3), st.integers(0, 10_000))
def test_join(own, others, shared, seed):
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((shared, D))
    a = BiasSubspace.span(np.concatenate([common, rng.standard_normal((own, D))]))
    b = BiasSubspace.span(np.concatenate([common, rng.standard_normal((others, D))]))
    joint = a.join(b)
    assert len(joint.basis) == shared + own + others  # what both share is counted once
    assert np.allclose(joint.basis @ joint.basis.T, np.eye(len(joint.basis)), atol=1e-12)
    x = rng.standard_normal((3, D))
    left = joint.project_out(x, normalize=False)
    for part in (a, b):
        assert np.allclose(left @ part.basis.T, 0, atol=1e-10)
        assert np.allclose(part.project_out(left, normalize=False), left, atol=1e-10)
    assert np.allclose(projector(b.join(a)), projector(joint), atol=1e-10)
    assert np.allclose(projector(joint.join(a)), projector(joint), atol=1e-10)


def test_almost_parallel_components_make_one():
    e = np.eye(D)
    angles = (1e-6, 1e-3, 3e-3, 0.1)
    joints = [BiasSubspace.span(e[:1]).join(BiasSubspace.span([np.cos(t) * e[0] + np.sin(t) * e[1]])) for t in angles]
    assert [len(joint.basis) for joint in joints] == [1, 1, 2, 2]
    assert np.linalg.norm(joints[1].project_out(e[0], normalize=False)) < 1e-3
    assert len(BiasSubspace.span(e[:1]).join(BiasSubspace.span([[1, 1e-3] + [0] * (D - 2)]), tolerance=1e-5).basis) == 2


def test_why_a_joint_subspace_needs_orthonormal_vectors():
    """Two unit vectors at cosine .51: the two obvious ways leave something, the joint basis does not."""
    a, b = np.array([1.0, 0, 0]), np.array([0.51, np.sqrt(1 - 0.51**2), 0])
    t = np.linalg.solve(np.stack([a, b, [0, 0, 1.0]]), [1.255, 0.118, 0.4])  # t.a = 1.255, t.b = .118
    both_at_once = printed_projection(t, [a, b])
    assert [abs(both_at_once @ a), abs(both_at_once @ b)] == pytest.approx([0.06, 0.64], abs=5e-3)
    one_by_one = printed_projection(printed_projection(t, [a]), [b])
    assert [abs(one_by_one @ a), abs(one_by_one @ b)] == pytest.approx([0.27, 0], abs=5e-3)
    joint = BiasSubspace.span([a]).join(BiasSubspace.span([b])).project_out(t, normalize=False)
    assert [joint @ a, joint @ b] == pytest.approx([0, 0], abs=1e-12)
    assert joint == pytest.approx([0, 0, 0.4])


def test_the_printed_formula_is_right_for_unit_vectors_only():
    g = np.eye(D)[0]
    t = X[0].copy()
    t[0] = 610 / (23 * 24)
    assert printed_projection(t, [g]) == pytest.approx(BiasSubspace.span([g]).project_out(t, normalize=False))
    left = printed_projection(t, [24 * g])
    assert abs(left @ (24 * g)) == pytest.approx(610)
    assert left @ (24 * g) == pytest.approx(t @ (24 * g) * (1 - 24))  # the remainder grows with the length
    assert BiasSubspace.span([24 * g]).project_out(t) @ g == pytest.approx(0)
    torch_left = printed_projection(torch.tensor(X), torch.tensor(X[:2]))
    assert np.allclose(torch_left, printed_projection(X, X[:2]))


@pytest.mark.parametrize("shape", [(D,), (6, D), (2, 77, D)])
@pytest.mark.parametrize("normalize", [True, False])
def test_shapes_and_kinds(shape, normalize):
    subspace = BiasSubspace.fit(random_sets(), n_components=3)
    x = np.random.default_rng(3).standard_normal(shape)
    out = subspace.project_out(x, normalize=normalize)
    assert out.shape == shape
    assert out.dtype == np.float64
    rows = [subspace.project_out(row, normalize=normalize) for row in x.reshape(-1, D)]
    assert np.allclose(out.reshape(-1, D), rows, atol=1e-12)
    for dtype, atol in ((torch.float64, 1e-12), (torch.float32, 1e-5), (torch.float16, 1e-2), (torch.bfloat16, 5e-2)):
        tensor = subspace.project_out(torch.tensor(x, dtype=dtype), normalize=normalize)
        assert tensor.dtype == dtype
        assert np.allclose(tensor.double().numpy(), out, atol=atol)
    assert subspace.project_out(x.astype(np.float32), normalize=normalize).dtype == np.float32
    read_only = x[..., ::-1]
    read_only.flags.writeable = False
    assert np.allclose(subspace.project_out(read_only)[..., 0], subspace.project_out(read_only.tolist())[..., 0])


def test_half_precision_loses_no_orthogonality():
    subspace = BiasSubspace.fit(random_sets(d=768), n_components=6)
    x = torch.randn(4, 77, 768, generator=torch.Generator().manual_seed(0)).half()
    left = subspace.project_out(x, normalize=False).double().numpy() @ subspace.basis.T
    assert np.abs(left).max() < 2e-3 < 0.1 < np.abs(x.double().numpy() @ subspace.basis.T).max()


def test_sets_may_be_tensors():
    sets = random_sets()
    tensors = [torch.tensor(s, requires_grad=True) for s in sets]
    a, b = (BiasSubspace.fit(s, n_components=2) for s in (sets, tensors))
    assert np.array_equal(a.basis, b.basis)
    assert len(BiasSubspace.fit(np.stack([sets[0], sets[1]]), n_components=2).basis) == 2
    assert BiasSubspace.fit([t.to(torch.bfloat16) for t in tensors], n_components=2).basis.dtype == np.float64


def test_first_tokens_stay():
    subspace = BiasSubspace.fit(random_sets(), n_components=3)
    x = np.random.default_rng(4).standard_normal((2, 7, D))
    for normalize in (True, False):
        out = subspace.project_out(x, normalize=normalize, skip_first=1)
        assert np.array_equal(out[:, 0], x[:, 0])
        assert np.array_equal(out[:, 1:], subspace.project_out(x[:, 1:], normalize=normalize))


def test_gradient():
    subspace = BiasSubspace.fit(random_sets(), n_components=3)
    x = torch.tensor(X, requires_grad=True)
    weights = torch.randn(X.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(subspace.project_out, x)
    (subspace.project_out(x, normalize=False) * weights).sum().backward()
    assert np.allclose(x.grad, subspace.project_out(weights.numpy(), normalize=False))  # a projection is its own transpose
    tokens = torch.randn(1, 3, D, dtype=torch.float64, requires_grad=True)
    subspace.project_out(tokens, normalize=False, skip_first=1).sum().backward()
    assert torch.equal(tokens.grad[:, 0], torch.ones(1, D, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda t: debias_delta(t, torch.tensor(X[0]), subspace), x[1:].detach().requires_grad_())


def test_delta_of_both_places():
    subspace = BiasSubspace.fit(random_sets(), n_components=3)
    neutral, targets = X[0], X[1:]
    difference = debias_delta(targets, neutral, subspace)
    assert np.allclose(np.linalg.norm(difference, axis=1), 1)
    assert np.allclose(difference @ subspace.basis.T, 0, atol=1e-12)
    both = subspace.project_out(targets, normalize=False) - subspace.project_out(neutral, normalize=False)
    assert np.allclose(difference, unit(both))
    inside = 0.3 * subspace.basis[0]  # a neutral text worded otherwise, within the subspace
    assert np.allclose(debias_delta(targets, neutral + inside, subspace), difference)
    target_alone = debias_delta(targets, neutral, subspace, where="target")
    assert np.allclose(target_alone, unit(subspace.project_out(targets) - neutral))
    lean = target_alone @ subspace.basis.T
    assert (np.sign(lean) == -np.sign(neutral @ subspace.basis.T)).all()  # the neutral's lean, turned round
    assert np.allclose(debias_delta(targets[0], neutral, subspace), difference[0])
    assert np.allclose(debias_delta(targets, X[[0, 0, 0, 0]], subspace), difference)
    tensors = debias_delta(torch.tensor(targets).float(), torch.tensor(neutral), subspace)
    assert tensors.dtype == torch.float32
    assert np.allclose(tensors, difference, atol=1e-5)


def test_official_implementation(fixtures):
    """Bolukbasi's own code (debiaswe): components, explained variance, neutralising."""
    data = np.load(fixtures / "bolukbasi_subspace" / "subspace.npz")
    vectors = data["vectors_loaded"]  # (200, 50)
    sets = list(vectors[data["pairs"]])
    subspace = BiasSubspace.fit(sets, n_components=10)
    signs = np.sign((subspace.basis * data["pca_components"]).sum(axis=1, keepdims=True))
    assert np.allclose(signs * subspace.basis, data["pca_components"], atol=3e-5)  # theirs is float32
    assert np.allclose(subspace.explained[:10], data["pca_explained_variance_ratio"], atol=1e-6)
    assert len(subspace.explained) == len(sets)
    first = BiasSubspace.fit(sets, n_components=1)
    assert np.allclose(first.project_out(vectors, normalize=False), data["drop_component0"], atol=1e-6)
    two = BiasSubspace.fit(sets, n_components=2)
    assert np.allclose(two.project_out(vectors), data["remove_directions_0_1"], atol=3e-5)
    neutral = np.setdiff1d(np.arange(len(vectors)), np.concatenate([data["specific"], data["equalize"].ravel()]))
    assert len(neutral) > 100
    assert np.allclose(first.project_out(vectors[neutral]), data["hard_debiased"][neutral], atol=1e-6)


PAIR = [X[:2]]
ONE = BiasSubspace.span(X[:1])
EVERYTHING = BiasSubspace.span(np.eye(D))
NAN = np.full((2, D), np.nan)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BiasSubspace.fit([], n_components=1), "at least one definitional set"),
        (lambda: BiasSubspace.fit([X[:2], X[:1]], n_components=1), r"at least 2 embeddings .* set 1 is \(1, 24\)"),
        (lambda: BiasSubspace.fit([X[0]], n_components=1), r"set 0 is \(24,\)"),
        (lambda: BiasSubspace.fit([X[:2], X[:2, :5]], n_components=1), r"set 1 is \(2, 5\)"),
        (lambda: BiasSubspace.fit([X[:2], NAN], n_components=1), "set 1 holds 48 NaN .* of 48"),
        (lambda: BiasSubspace.fit([X[[0, 0]], X[[1, 1]]], n_components=1), "no direction tells them apart"),
        (lambda: BiasSubspace.fit(PAIR, n_components=2), "from 0 to 1, the rank of these sets, or a share .* got 2"),
        (lambda: BiasSubspace.fit(PAIR, n_components=-1), "got -1"),
        (lambda: BiasSubspace.fit(PAIR, n_components=1.0), "got 1.0"),
        (lambda: BiasSubspace.fit(PAIR, n_components=0.0), "got 0.0"),
        (lambda: BiasSubspace.fit(PAIR, n_components=True), "got True"),
        (lambda: BiasSubspace.fit(PAIR, n_components="all"), "got 'all'"),
        (lambda: BiasSubspace(24 * np.eye(3)), "length 1 and be orthogonal"),
        (lambda: BiasSubspace.span(X[0]), r"directions \(k, d\), got shape \(24,\)"),
        (lambda: BiasSubspace.span([[0.0, 0.0], [1.0, 0.0]]), "length 0"),
        (lambda: BiasSubspace.span(NAN), "NaN"),
        (lambda: ONE.join(BiasSubspace.span(np.eye(3))), "24 and 3 dimensions"),
        (lambda: ONE.project_out(X[:, :3]), r"with d = 24, got shape \(5, 3\)"),
        (lambda: ONE.project_out(X[None, None]), "got shape"),
        (lambda: ONE.project_out(NAN), "x holds 48 NaN"),
        (lambda: ONE.project_out(X[0]), "the subspace leaves nothing of the text$"),
        (lambda: ONE.project_out(X[0].astype(np.float32)), "the subspace leaves nothing of the text$"),
        (lambda: ONE.project_out(X[[1, 0, 2, 0]]), r"nothing of the text \(2 of 4 rows, the first: \[1, 3\]\)"),
        (lambda: ONE.project_out(X[[1, 0]][None]), r"1 of 2 rows, the first: \[\(0, 1\)\]"),
        (lambda: EVERYTHING.project_out(torch.tensor(X)), "5 of 5 rows"),
        (
            lambda: ONE.project_out(np.zeros(D)),
            "x is a zero vector, which leaves nothing to normalise; normalize=False keeps it$",
        ),
        (lambda: ONE.project_out(np.stack([X[1], 0 * X[1]])), r"zero vector.*\(1 of 2 rows, the first: \[1\]\)"),
        (lambda: ONE.project_out(NAN[:1], normalize=False), r"x holds 24 NaN or infinite values of 24; .* at \[0, 0\]"),
        (lambda: ONE.project_out(["a text"]), "x must hold real numbers, got list of <U6"),
        (lambda: ONE.project_out(X[None], skip_first=1.0), "skip_first is for tokens.* got 1.0"),
        (lambda: BiasSubspace(np.full((1, 3), np.nan)), "length 1 and be orthogonal"),
        (lambda: BiasSubspace.span(X[:2], tolerance=np.nan), r"tolerance must lie in \[0, 1\), got nan"),
        (lambda: ONE.join(X), "another BiasSubspace only, got ndarray"),
        (lambda: printed_projection(NAN, X[:1]), r"x holds 48 NaN"),
        (lambda: printed_projection(X, NAN), "vectors hold 48 NaN"),
        (lambda: printed_projection(X, 0 * X), r"length 0 have no direction \(5 of 5 rows"),
        (lambda: ONE.project_out(X, skip_first=1), r"for tokens \(b, t, d\)"),
        (lambda: ONE.project_out(X[None], skip_first=6), "got 6"),
        (lambda: ONE.project_out(X[None], skip_first=-1), "got -1"),
        (
            lambda: debias_delta(X[1], X[2], ONE, where="neutral"),
            "unknown where 'neutral'; choose one of: 'difference'",
        ),
        (lambda: debias_delta(X[1], X[1], ONE), "same embedding: there is no direction to edit along$"),
        (lambda: debias_delta(X[:3], X[1], ONE, where="target"), r"same embedding.*1 of 3 rows, the first: \[1\]"),
        (lambda: debias_delta(X[1] + X[0], X[1], ONE), "leaves nothing"),
        (lambda: debias_delta(X[0], X[1], ONE, where="target"), "leaves nothing of the text"),
        (lambda: debias_delta(X[0] + ONE.project_out(X[1]), ONE.project_out(X[1]), ONE, where="target"), "is the neutral text"),
        (lambda: debias_delta(X, X[:2], ONE), r"got \(5, 24\) and \(2, 24\)"),
        (lambda: debias_delta(NAN, X[0], ONE), "target holds 48 NaN"),
        (lambda: debias_delta(X[1], NAN[0], ONE), "neutral holds 24 NaN"),
        (lambda: printed_projection(X, X[0]), r"vectors \(k, d\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


class OnMps(torch.Tensor):
    """A tensor that has no float64 until it is on the CPU, as on Apple's GPUs."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.Tensor.double or any(a is torch.float64 for a in args):
            raise TypeError("Cannot convert a MPS Tensor to float64")
        result = super().__torch_function__(func, types, args, kwargs or {})
        return result.as_subclass(torch.Tensor) if func is torch.Tensor.cpu else result


def test_float64_is_made_on_the_cpu():
    sets = [torch.tensor(s).float() for s in random_sets()]
    there = [s.as_subclass(OnMps) for s in sets]
    assert np.array_equal(BiasSubspace.fit(there, n_components=2).basis, BiasSubspace.fit(sets, n_components=2).basis)
    assert np.array_equal(BiasSubspace.span(there[0]).basis, BiasSubspace.span(sets[0]).basis)
    assert np.array_equal(BiasSubspace(BiasSubspace.span(sets[0]).basis).basis, BiasSubspace.span(sets[0]).basis)


def test_rounding_of_half_precision_is_no_direction():
    """Pairs that differ in nothing but the last bit, beside one that does."""
    e = np.eye(D)
    pairs = [np.stack([x, x]) for x in 3 * X] + [np.stack([e[0], -e[0]])]
    for dtype in (torch.half, torch.bfloat16):
        sets = [torch.tensor(p).to(dtype) for p in pairs]
        for s in sets[:-1]:
            s[1, 5] *= 1 + torch.finfo(dtype).eps
        assert len(BiasSubspace.fit(sets, n_components=1).explained) == 1


def test_half_precision_delta_is_that_of_float32():
    subspace = BiasSubspace.fit(random_sets(), n_components=3)
    for where in ("difference", "target"):
        half = [torch.tensor(x).half() for x in (X[1:], X[0])]
        found, right = debias_delta(*half, subspace, where=where), debias_delta(*(x.float() for x in half), subspace, where=where)
        assert found.dtype == torch.half
        assert torch.equal(found, right.half())


def test_whole_numbers_and_a_list_of_tensors():
    x = np.arange(D, dtype=np.uint8)
    assert np.allclose(ONE.project_out(x), ONE.project_out(x.astype(float)))
    assert np.allclose(printed_projection(x, X[:1]), printed_projection(x.astype(float), X[:1]))
    rows = [torch.tensor(row, requires_grad=True) for row in X]
    assert np.array_equal(BiasSubspace.fit([rows], n_components=1).basis, BiasSubspace.fit([X], n_components=1).basis)


def test_without_renormalising_nothing_may_be_left():
    assert np.allclose(EVERYTHING.project_out(X, normalize=False), 0, atol=1e-12)
    assert not ONE.project_out(np.zeros(D), normalize=False).any()


def test_one_planted_axis_explains_everything():
    rng = np.random.default_rng(0)
    axis = rng.standard_normal(32)
    base = rng.standard_normal((10, 1, 32))
    pairs = base + np.array([1.0, -1.0])[None, :, None] * axis
    assert BiasSubspace.fit(list(pairs), n_components=0).explained[0] == pytest.approx(1.0)
    assert BiasSubspace.fit(list(rng.standard_normal((40, 2, 32))), n_components=0).explained[0] < 0.2


def test_official_subspace(fixtures):
    data = np.load(fixtures / "bolukbasi_subspace" / "subspace.npz")
    pairs = data["vectors_loaded"][data["pairs"]]  # (12, 2, 50)
    ratio = data["pca_explained_variance_ratio"]
    assert np.allclose(BiasSubspace.fit(list(pairs), n_components=0).explained[: len(ratio)], ratio, atol=2e-6)


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_vectors_whose_squares_overflow_or_underflow_are_projected_as_any_others(scale):
    subspace = BiasSubspace(np.eye(4)[:1])
    for x in (np.full(4, scale, np.float32), torch.full((2, 4), scale)):
        found = np.asarray(subspace.project_out(x))
        assert np.allclose(found, np.broadcast_to([0, 3**-0.5, 3**-0.5, 3**-0.5], found.shape), atol=1e-6)
