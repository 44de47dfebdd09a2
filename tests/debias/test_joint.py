"""The parts of joint debiasing against six steps of the released code, in both precisions."""

import numpy as np
import pytest
import torch

from debias_utils.debias.joint import LAYERS, PARAMETERS, JointTraining, PairedQueue, bias_alignment, bias_alignment_loss

EPOCHS = (0, 0, 4, 5, 6, 7)
OFFICIAL = [f"mlp{i}{{}}.network.{layer}.{kind}" for i in (1, 2) for layer in (0, 2) for kind in ("weight", "bias")]
TOLERANCE = {"f32": (1e-5, 2e-5), "f64": (1e-9, 1e-9)}  # values, gradients


@pytest.fixture(params=list(TOLERANCE))
def official(request, fixtures):
    packed = np.load(fixtures / "joint_vl_debias" / f"training_{request.param}.npz")
    return {name: torch.from_numpy(packed[name]) for name in packed.files}, *TOLERANCE[request.param]


def parameters(numbers, where, suffix=""):
    return {name: numbers[f"{where}/{old.format(suffix)}"].clone() for name, old in zip(PARAMETERS, OFFICIAL, strict=True)}


def start(numbers):
    queue = PairedQueue(
        numbers["init/image_queue"].T.clone(), numbers["init/text_queue"].T.clone(), int(numbers["init/queue_ptr"][0])
    )
    return JointTraining(
        parameters(numbers, "init"), queue, copies=parameters(numbers, "init", "_m"),
        form="add", alpha=0.3, temperature=float(np.float32(0.07)), lr=0.01, momentum=0.995,
    )  # fmt: skip


def batch(numbers, i):
    embeddings = [numbers[f"step{i}/in_{name}"] for name in ("img", "text1", "text2")]
    return embeddings, {"flipped": numbers[f"step{i}/used_counterfactual"].view(1), "teacher": 0.4 if EPOCHS[i] >= 5 else 0.0}


def test_six_steps_of_the_released_code(official):
    numbers, atol, _ = official
    training = start(numbers)
    for i in range(len(EPOCHS)):
        embeddings, drawn = batch(numbers, i)
        losses = training.step(*embeddings, **drawn)
        for name, value in losses.items():
            torch.testing.assert_close(value, numbers[f"step{i}/loss_{name}"], atol=atol, rtol=0)
    for found, suffix in ((training.modules, ""), (training.copies, "_m")):
        for name, expected in parameters(numbers, "final", suffix).items():
            torch.testing.assert_close(found[name].detach(), expected, atol=atol, rtol=0)
    torch.testing.assert_close(training.queue.images, numbers["final/image_queue"].T, atol=atol, rtol=0)
    torch.testing.assert_close(training.queue.texts, numbers["final/text_queue"].T, atol=atol, rtol=0)
    assert training.queue.place == int(numbers["final/queue_ptr"][0])


@pytest.mark.parametrize("loss", ["ba", "cd", "total"])
def test_gradients_of_the_first_step(official, loss):
    numbers, _, atol = official
    training = start(numbers)
    embeddings, drawn = batch(numbers, 0)
    training.losses(*embeddings, **drawn)[loss].backward()
    for name, old in zip(PARAMETERS, OFFICIAL, strict=True):
        expected = numbers[f"step0/grad_{loss}/{old.format('')}"]
        found = training.modules[name].grad
        torch.testing.assert_close(torch.zeros_like(expected) if found is None else found, expected, atol=atol, rtol=0)


def test_what_comes_out_in_the_end(official):
    numbers, atol, _ = official
    final = parameters(numbers, "final")
    for tower in ("image", "text"):
        found = bias_alignment(numbers[f"inference/in_{tower}"], final, tower=tower)
        torch.testing.assert_close(found, numbers[f"inference/encode_{tower}"], atol=atol, rtol=0)


def test_the_papers_form_subtracts_what_has_both_signs():
    modules = {name: torch.zeros(2) if name.endswith(("b1", "b2")) else torch.eye(2) for name in PARAMETERS}
    modules |= {"shared_w2": torch.tensor([[0.5, 0.0], [0.0, -0.25]])}
    x = torch.tensor([[1.0, 2.0]])
    assert bias_alignment(x, modules, tower="text", form="subtract").tolist() == [[0.5, 2.5]]
    assert bias_alignment(x, modules, tower="text", form="add").tolist() == [[1.5, 2.0]]  # the last ReLU cuts -.5
    assert bias_alignment(x, modules, tower="image", form="subtract").tolist() == [[0.0, 3.0]]  # of M(x) + x = 2 x
    with pytest.raises(ValueError, match="subtract"):
        bias_alignment(x, modules, tower="text", form="divide")


def test_nothing_to_add_is_an_identity_without_a_loss_of_alignment():
    x = torch.eye(3)
    modules = {f"{module}_{layer}": torch.zeros(3, 3) if "w" in layer else torch.zeros(3)
               for module in ("image", "shared") for layer in LAYERS}  # fmt: skip
    assert torch.equal(bias_alignment(x, modules, tower="image"), x)
    assert bias_alignment_loss(x - x, x - x, x, x, temperature=0.07) == 0


def test_the_queue_goes_round():
    queue = PairedQueue(torch.zeros(4, 1), torch.zeros(4, 1))
    for first in (1, 4, 7):  # three each
        rows = torch.arange(first, first + 3.0)[:, None]
        queue.push(rows, -rows)
    assert queue.images.flatten().tolist() == [9, 6, 7, 8]
    assert torch.equal(queue.texts, -queue.images)
    queue.push(torch.arange(10, 16.0)[:, None], torch.zeros(6, 1))  # more than fit: the last four
    assert sorted(queue.images.flatten().tolist()) == [12, 13, 14, 15]
