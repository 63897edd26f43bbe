"""What every objective must keep, whatever its paper."""

import copy
import importlib
import pkgutil
from dataclasses import replace

import pytest
import torch

import golden
from apexgen import objectives
from apexgen.objectives import OBJECTIVES, Batch, build_objective
from apexgen.objectives.apex import Apex
from apexgen.train import descend
from fields import batch, draw, gradient, kept_gradient, modules, nets, terms
from settings import SETTINGS

every_setting = pytest.mark.parametrize("objective", SETTINGS.values(), ids=SETTINGS.keys())


def test_every_objective_is_among_the_settings():
    assert {type(objective) for objective in SETTINGS.values()} == set(OBJECTIVES.values())


@every_setting
def test_the_same_generator_gives_the_same_loss_bitwise(objective):
    networks, one = nets(), batch()
    first, again = (list(terms(objective, networks, one, seed=5)) for _ in range(2))
    other = list(terms(objective, networks, one, seed=6))
    assert all(torch.equal(a.value, b.value) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].value, other[0].value)


@every_setting
@pytest.mark.parametrize("n", range(1, 9))
def test_every_batch_size_is_finite(objective, n):
    networks = nets()
    for loss in terms(objective, networks, batch(n)):
        assert loss.value.ndim == 0 and loss.value.isfinite()
        loss.value.backward()
        assert all(not log.requires_grad and log.isfinite() for log in loss.logs.values())
    assert kept_gradient(networks.student, networks.fake).isfinite().all()


@every_setting
def test_the_gradient_reaches_the_student_only(objective):
    """Or, of terms called fake and discriminator, those networks only, where the objective has them."""
    networks, own = nets(), ["discriminator"] + ["fake"] * objective.needs_fake_network
    every = modules(networks)
    for loss in terms(objective, networks, batch()):
        for network in every.values():
            network.zero_grad()
        loss.value.backward()
        learner = every[loss.name if loss.name in own else "student"]
        assert kept_gradient(learner).abs().sum() > 0, loss.name
        for network in {*every.values()} - {learner}:
            assert all(p.grad is None for p in network.parameters()), loss.name


@every_setting
def test_the_terms_share_no_graph(objective):
    """Backward one after another works, and adds up to the gradient of the sum."""
    networks, one = nets(), batch()
    for loss in terms(objective, networks, one):
        loss.value.backward()
    total = sum(loss.value for loss in terms(objective, networks, one))
    learners = [modules(networks)[name] for name in ("student", "fake", "discriminator")]
    torch.testing.assert_close(kept_gradient(*learners), gradient(total, *learners))


@every_setting
def test_the_callers_tensors_are_left_alone(objective):
    one, drawn = batch(), draw(objective)
    before = copy.deepcopy((one, drawn))
    list(objective.terms(nets(), one, drawn, 0))
    for now, then in zip((one.c, one.null), (before[0].c, before[0].null), strict=True):
        assert torch.equal(now.embeds, then.embeds) and torch.equal(now.mask, then.mask)
    assert torch.equal(one.x, before[0].x)
    for kind in ("noises", "times"):
        pairs = zip(getattr(drawn, kind), getattr(before[1], kind), strict=True)
        assert all(torch.equal(now, then) for now, then in pairs)


@every_setting
def test_pictures_are_asked_for_where_they_are_needed(objective):
    prompts = replace(batch(), x=None)
    if objective.needs_pictures:
        with pytest.raises(ValueError, match=r'needs pictures.*anchor = "teacher"'):
            list(terms(objective, nets(), prompts))
    else:
        assert len(list(terms(objective, nets(), prompts))) > 0


@pytest.mark.parametrize(
    "name, fields, line",
    [
        ("apx", {}, 'write name = "apex"'),
        ("apex", {"warm_up": 3}, "write warmup = 3"),
        ("flow_matching", {"logit_men": 0.5}, "write logit_mean = 0.5"),
        ("flow_matching", {"warmup": 0}, '"warmup"; remove it .its fields are logit_mean, logit_deviation.$'),
        ("apex", {"warmup": "150"}, "warmup must be of type int.*write warmup = 150"),
        (
            "apex",
            {"shift_scale": float("nan")},
            r"shift_scale must be a finite number, got nan; write shift_scale = -1\.0",
        ),
        ("apex", {"shift_bias": float("-inf")}, "shift_bias must be a finite number, got -inf; write shift_bias = 0"),
        ("apex", {"redraw": 1}, "write redraw = true"),
        ("apex", {"form": "kll"}, 'write form = "kl"'),
        ("apex", {"anchor": "techer"}, 'write anchor = "teacher"'),
        ("apex", {"real": "Teacher"}, 'write real = "teacher"'),
        ("apex", {"fake_gradient": True}, 'no effect with form = "kl"'),
        ("apex", {"mix": 0.3}, 'no effect with form = "kl"'),
        ("apex", {"form": "mix", "guidance": 2.0}, 'no effect with form = "mix"'),
        ("apex", {"form": "mix", "anchor": "teacher"}, 'write anchor = "data"'),
        ("apex", {"real": "student"}, 'write anchor = "data"'),
        ("apex", {"guidance": 0.5}, "guidance must be at least 1.*write guidance = 1.0"),
        ("apex", {"guidance": 2.0, "guidance_until": 1.5}, "between 0.001 and 1.*write guidance_until = 1.0"),
        ("dmd", {"guidance_until": 0.5}, "no effect with guidance = 1.0; write guidance_until = 1.0"),
        ("apex", {"pair_weight": 0.5}, "no effect with pair_steps = 0; write pair_weight = 0.125"),
        ("dmd", {"pair_share": 0.5}, "no effect with pair_steps = 0; write pair_share = 0.125"),
        ("apex", {"pair_steps": -1}, "pair_steps must be at least 0.*write pair_steps = 0"),
        ("apex", {"form": "mix", "pair_steps": 4}, 'no effect with form = "mix"'),
        ("apex", {"form": "mix", "guidance_until": 0.5}, 'no effect with form = "mix"'),
        ("apex", {"clamp": 0.0}, "write clamp = 1.0"),
        ("apex", {"kl_weight": float("nan")}, "write kl_weight = 1.0"),
        ("apex", {"fake_weight": -1}, "write fake_weight = 1.0"),
        ("apex", {"fake_told": "other", "shift_bias": 1.0}, 'no effect with fake_told = "other"'),
        ("apex", {"form": "mix", "mix": 1.5}, "mix must be between 0 and 1.*write mix = 0.5"),
        ("apex", {"time_low": 0.9, "time_high": 0.1}, "write time_high = 0.98"),
        ("flow_matching", {"logit_deviation": -1.0}, "write logit_deviation = 1.0"),
        (
            "apex",
            {"anchor_weight": 0.0, "anchor_share": 0.5},
            "no effect with anchor_weight = 0; write anchor_share = 1",
        ),
        ("apex", {"kl_weight": 0.0, "clamp": 2.0}, "no effect with kl_weight = 0; write clamp = 1.0"),
        ("dmd", {"normalise": False, "floor": 1e-3}, "no effect with normalise = false; write floor = 0.0001"),
        ("ddo", {"alpha": 0.0, "solver_steps": 4}, "no effect with alpha = 0; write solver_steps = 8"),
        ("mean_flow", {"power": 0.0, "floor": 1e-2}, "no effect with power = 0; write floor = 0.001"),
        ("rcgm", {"logit_mean": 1.0}, '"rcgm" has no field "logit_mean"'),
        ("lcm", {"logit_deviation": 1.0}, '"lcm" has no field "logit_deviation"'),
        ("shortcut", {"bootstrap_share": 0.0}, "write bootstrap_share = 0.25"),
    ],
)
def test_a_bad_field_is_refused_with_the_line_to_write(name, fields, line):
    with pytest.raises(ValueError, match=line) as error:
        build_objective(name, fields)
    assert "\n" not in str(error.value)


def test_fields_reach_the_objective():
    built = build_objective("apex", {"form": "mix", "mix": 0.25, "shift_bias": 1})
    assert built == Apex(form="mix", mix=0.25, shift_bias=1)


def test_every_objective_links_its_paper():
    for module in pkgutil.iter_modules(objectives.__path__):
        if module.name not in ("base", "check", "path"):
            loaded = importlib.import_module(f"apexgen.objectives.{module.name}")
            assert "https://arxiv.org/abs/" in loaded.__doc__, module.name


@pytest.mark.parametrize("objective", [one for one in SETTINGS.values() if getattr(one, "fake_told", "") != "other"])
def test_a_step_in_parts_is_the_whole_step(objective):
    """Also where a term sees a share of the rows: of two parts one may have none of them."""
    networks, one, drawn = nets(), batch(8), draw(objective, 8)
    every = [*modules(networks).values()]
    found = []
    for size in (8, 4, 1):
        for network in every:
            network.zero_grad()
        for first in range(0, 8, size):
            rows = slice(first, first + size)
            descend(objective, networks, one.rows(rows), drawn.rows(rows), 0, 8 // size)
        found.append(kept_gradient(*every))
    assert found[0].abs().max() > 0
    for parts in found[1:]:
        torch.testing.assert_close(parts, found[0], rtol=1e-9, atol=1e-12)


@every_setting
def test_bfloat16_autocast_is_finite(objective):
    """The wrapper casts as a backbone does: half precision inside, the latents' own outside."""
    networks, one = nets(), batch()
    every = {name: network.float() for name, network in modules(networks).items()}

    def half(network):
        def velocity(x, t, r, c):
            with torch.autocast("cpu", torch.bfloat16):
                return network(x, t, r, c).float()

        return velocity

    networks.discriminator.teacher = half(networks.discriminator.teacher.float())
    cast = replace(networks, **{name: half(every[name]) for name in every.keys() - {"discriminator"}})
    single = Batch(one.c.to(torch.float32), one.null.to(torch.float32), one.x.float())
    for loss in objective.terms(cast, single, objective.draw(single.x.shape, torch.Generator().manual_seed(0)), 0):
        loss.value.backward()
        assert loss.value.isfinite()
    assert kept_gradient(*every.values()).isfinite().all()


@every_setting
def test_ten_golden_losses(objective, request):
    """What each setting has been worth since it was proven; `python tests/golden.py` writes them anew."""
    name = request.node.callspec.id
    torch.testing.assert_close(
        torch.tensor(golden.losses(objective)), torch.tensor(golden.read()[name]), rtol=1e-5, atol=1e-7
    )


def test_what_only_prepares_is_the_warm_up_of_the_form_that_has_one():
    assert (Apex(warmup=7).least_steps, Apex(form="mix").least_steps) == (7, 0)
    assert build_objective("progressive", {"halvings": 2, "stage_steps": 5}).least_steps == 10
    assert build_objective("flow_matching", {}).least_steps == 0
