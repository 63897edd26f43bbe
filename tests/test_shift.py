"""Shifts of the condition: what each form is, what a learned one learns from, and that inference does without."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from apexgen import checkpoint
from apexgen.backbones.diffusion import load_backbone
from apexgen.condition import Condition
from apexgen.config import dump_run
from apexgen.distill import open_student, open_trained, read_run
from apexgen.export.run import export_run
from apexgen.objectives.apex import Apex
from apexgen.shift import Affine, affine, scalar
from apexgen.student import Student
from apexgen.train import train
from fields import batch, draw, nets
from pipelines import BUILDERS, SQUARE
from small import backbone, perturb, short_run, trainer

FORMS = ("scalar", "diagonal", "low-rank")
LEARNED = ("objective.shift_learned=true",)


def matrix(part: Affine, width: int) -> torch.Tensor:
    """A of x -> A x + b."""
    return (part(torch.eye(width)) - part(torch.zeros(1, width))).T


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("a", [-1.0, 0.5])
def test_every_form_is_a_times_an_orthogonal_matrix_and_b(form, a, generator):
    part = affine(form, a, 0.25, 6, 2, generator)
    A = matrix(part, 6).detach()
    torch.testing.assert_close(A @ A.T, a**2 * torch.eye(6), atol=1e-5, rtol=1e-5)
    assert torch.equal(part(torch.zeros(6)), torch.full((6,), 0.25))
    turned = {"scalar": 0, "diagonal": int((A.diagonal().sign() != A.diagonal()[0].sign()).sum()), "low-rank": 2}[form]
    eigenvalues = torch.linalg.eigvalsh(A / a)
    if form == "scalar":
        assert torch.equal(A, a * torch.eye(6))
    elif form == "diagonal":
        assert torch.equal(A, A.diagonal().diag()) and 0 < turned < 6
    else:
        torch.testing.assert_close(eigenvalues, torch.tensor([-1.0, -1, 1, 1, 1, 1]), atol=1e-5, rtol=0)


def test_nearness_is_the_square_of_the_cosine_and_nothing_past_a_right_angle():
    x = torch.tensor([[[3.0, 4.0], [1.0, 0.0]]])
    for part, expected in (
        (Affine(torch.tensor(2.0), torch.tensor(0.0)), 1.0),
        (Affine(torch.tensor(-1.0), torch.tensor(0.0)), 0.0),
        (Affine(torch.tensor([1.0, -1.0]), torch.tensor(0.0)), 0.5),  # cosines (9 - 16) / 25 and 1
        (Affine(torch.tensor([1.0, 0.0]), torch.tensor(0.0)), (0.36 + 1) / 2),
    ):
        part(x)
        assert part.nearness().item() == pytest.approx(expected, abs=1e-6)


def test_precision_is_the_conditions_own():
    part = affine("low-rank", -1.0, 0.0, 4, 2, torch.Generator().manual_seed(0))
    assert part(torch.ones(2, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert scalar(0.5, 1).embeds(torch.ones(2, dtype=torch.float64)).dtype == torch.float64


def learned(objective):
    return replace(nets(), shift=objective.new_shift(4, None, 0).double())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("settings", [{"warmup": 0}, {"form": "mix"}])
def test_a_learned_shift_is_moved_by_the_fake_term_and_by_what_holds_it_apart_alone(form, settings):
    rank = {"shift_rank": 2} if form == "low-rank" else {}
    objective = Apex(shift_form=form, shift_learned=True, shift_scale=0.5, **rank, **settings)
    networks, one, seen = learned(objective), batch(), {}
    for loss in objective.terms(networks, one, draw(objective), 0):
        networks.student.zero_grad(), networks.shift.zero_grad()
        loss.value.backward()
        grads = [weight.grad for weight in networks.shift.parameters()]
        seen[loss.name] = any(grad is not None and grad.any() for grad in grads)
        if loss.name == "apart":
            assert all(weight.grad is None for weight in networks.student.parameters())
    assert {name for name, moved in seen.items() if moved} == {"fake", "apart"}


@pytest.mark.parametrize("weight, collapses", [(1.0, False), (0.0, True)])
def test_what_is_drawn_to_the_real_condition_stays_at_a_right_angle(weight, collapses):
    """A network that knows its samples best under their own caption draws a learned shift there."""
    torch.manual_seed(1)
    objective = Apex(shift_form="diagonal", shift_learned=True, shift_apart=weight)
    shift, c = objective.new_shift(64, None, 0), Condition(torch.randn(16, 5, 64), torch.ones(16, 5))
    optimizer = torch.optim.Adam(shift.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        told = c.shift(shift)
        (0.1 * (told.embeds - c.embeds).square().mean()).backward()
        sum((loss.value for loss in objective.apart_terms(shift)), torch.zeros(())).backward()
        optimizer.step()
    cosine = torch.cosine_similarity(c.embeds, c.shift(shift).embeds, dim=-1).mean()
    assert cosine > 0.99 if collapses else cosine < 0.5


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"shift_rank": 4}, 'shift_rank = 4 has no effect with shift_form = "scalar"; write shift_rank = 8'),
        ({"shift_apart": 2.0}, "shift_apart = 2.0 has no effect with shift_learned = false"),
        ({"shift_form": "diagonal", "shift_scale": 0.0}, 'shift_form = "diagonal" has no effect with shift_scale = 0'),
        ({"shift_learned": True, "fake_weight": 0.0}, "shift_learned = true has no effect with fake_weight = 0"),
        ({"shift_place": "projection", "fake_told": "other"}, "shift_place .* has no effect with fake_told"),
        ({"shift_form": "full"}, "shift_form must be one of scalar, diagonal, low-rank"),
    ],
)
def test_what_has_no_effect_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Apex(**settings)


def test_more_directions_than_channels_are_refused():
    with pytest.raises(ValueError, match="shift_rank = 8: there are 4 channels; write shift_rank = 4"):
        Apex(shift_form="low-rank").new_shift(64, 4, 0)


@pytest.fixture(scope="module", params=BUILDERS)
def net(request, folders):
    net = load_backbone(folders[request.param])
    net.size = SQUARE
    return net


def inputs(net):
    x = torch.randn(2, *net.latent_shape(), generator=torch.Generator().manual_seed(1))
    return x, torch.tensor([0.3, 0.7]).view(2, 1, 1, 1), net.encode_text(["a red ring", "a photo of two blue rings"])


@torch.no_grad()
def test_a_shift_after_the_projection_is_what_attention_is_given(net):
    """And the pooled vector's projection is shifted too; both widths are the ones that a shift is made for."""
    x, t, c = inputs(net)
    names = [name for name in (net.text_embedder, net.pooled_embedder) if name is not None]
    assert (len(names) == 2) == (c.pooled is not None)
    kept = {name: [] for name in names}
    hooks = [
        net.network.get_submodule(name).register_forward_hook(lambda m, i, out, name=name: kept[name].append(out))
        for name in names
    ]
    before = net(x, t, t, c)
    shifted = net(x, t, t, c.shift(scalar(-2.0, 0.5, "projection")))
    for hook in hooks:
        hook.remove()
    for name, width in zip(names, net.projected_widths(), strict=False):
        plain, told = kept[name]
        assert plain.shape[-1] == width
        torch.testing.assert_close(told, -2 * plain + 0.5)
    assert (shifted - before).norm() > 1e-3 * before.norm()
    assert torch.equal(net(x, t, t, c), before)  # nothing is left behind
    assert torch.equal(net(x, t, t, c.shift(scalar(1.0, 0.0, "projection"))), before)
    assert net.encoded_widths() == (c.embeds.shape[-1], None if c.pooled is None else c.pooled.shape[-1])


@torch.no_grad()
def test_the_average_is_shifted_after_the_projection_too(folders):
    net = load_backbone(folders["flux"])
    net.size = SQUARE
    x, t, c = inputs(net)
    student = Student(net, "lora", 2)
    told = c.shift(scalar(-1.0, 0.0, "projection"))
    torch.testing.assert_close(student.ema(x, t, t, told), net(x, t, t, told))


def test_checkpointed_gradients_through_a_projection_that_is_shifted_and_adapted_agree(folders):
    found = []
    for checkpointing in (False, True):
        net = load_backbone(folders["flux"])
        net.size = SQUARE
        widths = net.projected_widths()
        shift = Apex(shift_form="low-rank", shift_learned=True, shift_place="projection").new_shift(*widths, 0)
        student = Student(net, "lora", 2, "all-linear", shift=shift)
        perturb(student)
        assert net.projected_widths() == widths
        if checkpointing:
            net.network.enable_gradient_checkpointing()
        x, t, c = inputs(net)
        net(x, t, t, c.shift(student.shift)).square().mean().backward()
        found.append({name: weight.grad for name, weight in student.trained.items()})
    assert any(name.startswith("shift.pooled") for name in found[0])
    for name, gradient in found[0].items():
        assert gradient is not None and gradient.any(), name
        torch.testing.assert_close(found[1][name], gradient, atol=1e-6, rtol=1e-4, msg=name)


def test_a_learned_shift_is_restored_bitwise_and_neither_average_nor_export_holds_it(tmp_path):
    shifted = ("objective.shift_form=low-rank", "objective.shift_place=projection")
    settings = (*LEARNED, *shifted, "train.save_every=1")
    first = trainer(tmp_path / "a", *settings)
    start = {name: weight.detach().clone() for name, weight in first.student.trained.items() if "shift." in name}
    assert start
    train(first, tmp_path / "a", lambda step, logs: None)
    for name, weight in start.items():
        assert not torch.equal(first.student.trained[name], weight), name
    (tmp_path / "a" / "config.toml").write_text(dump_run(first.run))
    *_, newest = sorted((tmp_path / "a" / "checkpoints").iterdir())
    assert not any("shift." in name for name in load_file(newest / "average.safetensors"))
    student = open_trained(*read_run(tmp_path / "a"))
    for name in start:
        assert torch.equal(student.trained[name], first.student.trained[name]), name
    exported = export_run(tmp_path / "a", "diffusers")
    assert exported.difference < 1e-4
    assert not any("shift" in name for name in load_file(exported.folder / "pytorch_lora_weights.safetensors"))


def test_a_run_that_resumes_is_the_one_that_did_not_stop(tmp_path):
    whole = trainer(tmp_path / "whole", *LEARNED, "objective.shift_form=diagonal")
    for _ in range(2):
        whole.advance()
    whole.save(tmp_path / "half")
    for _ in range(2):
        whole.advance()
    again = trainer(tmp_path / "again", *LEARNED, "objective.shift_form=diagonal")
    again.restore(checkpoint.load_latest(tmp_path / "half" / "checkpoints", print))
    for _ in range(2):
        again.advance()
    for name, weight in whole.student.trained.items():
        assert torch.equal(again.student.trained[name], weight), name


def test_a_fixed_form_is_the_same_whenever_it_is_made_and_is_not_trained(tmp_path):
    made = []
    for _ in range(2):
        run = short_run(tmp_path, "objective.shift_form=diagonal")
        student = open_student(run, backbone())
        assert not any("shift." in name for name in student.trained)
        made.append(student.shift.embeds.scale)
    assert torch.equal(*made) and set(made[0].tolist()) == {-1.0, 1.0}
