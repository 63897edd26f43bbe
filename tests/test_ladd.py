"""The laws of LADD: the hinge by hand, who learns from which term, which way samples move, and the real teacher."""

import pytest
import torch

from apexgen.compare.plane import Plane
from apexgen.compare.points import Ring
from apexgen.discriminator import Discriminator
from apexgen.objectives import Batch, Draw, Nets
from apexgen.objectives.consistency import Consistency
from apexgen.objectives.ladd import Ladd
from apexgen.objectives.sana_sprint import SanaSprint
from apexgen.student import Student
from fields import batch, draw, kept_gradient, nets, terms
from gaussian import empty_condition
from small import embedded, inputs, perturb, trainer_of
from test_train import assert_resumes, run_to_end


class Said:
    """A discriminator whose logits are the features themselves."""

    def __init__(self, scale=1.0):
        self.scale = scale

    def logits(self, features, learns=True):
        return self.scale * torch.cat([one.flatten(1) for one in features], dim=1)


@pytest.mark.parametrize(
    "real, fake, value",
    [
        ([0.0], [0.0], 2.0),  # undecided
        ([1.0, 3.0], [-1.0, -5.0], 0.0),  # told apart with room to spare
        ([-1.0, 0.5], [0.25, -2.0], (2 + 0.5) / 2 + (1.25 + 0) / 2),
    ],
)
def test_the_hinge_by_hand(real, fake, value):
    real, fake = torch.tensor([real]), torch.tensor([fake])
    loss = Ladd(r1=0.0).told_apart(Said(), [real], [fake])
    assert loss.value.item() == value
    assert loss.logs["on_real"] == real.mean() and loss.logs["on_fake"] == fake.mean()


def test_r1_is_the_square_of_the_slope_at_the_real_ones():
    real, fake = [torch.zeros(2, 3, 5)], [torch.zeros(2, 3, 5)]
    plain, weighted = (Ladd(r1=weight).told_apart(Said(4.0), real, fake).value for weight in (0.0, 0.5))
    assert weighted - plain == 0.5 * 5 * 4.0**2, "five elements a token, each with slope 4"


def test_the_generator_term_is_judged_by_heads_that_do_not_learn():
    networks = nets()
    discriminator, generator = terms(Ladd(), networks, batch())
    generator.value.backward()
    assert kept_gradient(networks.discriminator.heads).abs().sum() == 0
    assert kept_gradient(networks.student).abs().sum() > 0
    discriminator.value.backward()
    assert kept_gradient(networks.discriminator.heads).abs().sum() > 0


def test_what_the_discriminator_reads_holds_no_graph():
    """The teacher is run with a gradient where it leads to the generator, and nowhere else."""
    networks, asked = nets(), []
    judge = networks.discriminator
    judge.teacher.requires_grad_(True)  # as what is on top of a network is, whoever trains
    features = judge.features
    judge.features = lambda x, t, c: asked.append(features(x, t, c)) or asked[-1]
    for step in (0, 1):
        list(terms(Ladd(warmup=1), networks, batch(), step))
    assert [one[0].requires_grad for one in asked] == [False, False, True, False]


def test_during_the_warm_up_only_the_discriminator_learns():
    names = [[loss.name for loss in terms(Ladd(warmup=2), nets(), batch(), step)] for step in range(3)]
    assert names == [["discriminator"], ["discriminator"], ["discriminator", "generator"]]


def test_a_one_step_generator_starts_from_noise_alone_and_one_of_many_on_its_grid():
    drawn = draw(Ladd(), 8)
    assert (drawn.times[1] == 1).all()
    moved = Batch(batch(8).c, batch(8).null, torch.full((8, 3, 4, 4), 7.0).double())
    asked = []

    def student(x, t, r, c):
        asked.append(x)
        return x * torch.ones((), dtype=torch.float64, requires_grad=True)

    networks = nets()
    list(Ladd().terms(Nets(student, student, student, discriminator=networks.discriminator), moved, drawn, 0))
    assert torch.equal(asked[0], drawn.noises[1])
    starts = Ladd(steps=4).draw((200, 3, 4, 4), torch.Generator().manual_seed(0)).times[1]
    assert set(starts.flatten().tolist()) == {0.25, 0.5, 0.75, 1.0}


@pytest.mark.parametrize("every, read", [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (3, [1, 4]), (9, [4])])
def test_heads_are_counted_from_the_last_block(every, read):
    assert list(Ladd(every=every).blocks_with_heads(5)) == read
    with pytest.raises(ValueError, match=r'write objective.name = "dmd"'):
        Ladd(every=every).blocks_with_heads(0)


def test_the_generator_moves_toward_the_data():
    """Samples 2 to the left of the data: once the heads tell them apart, descent shifts them to the right."""
    torch.manual_seed(0)
    hidden = torch.nn.Linear(2, 16).requires_grad_(False)
    teacher = lambda x, t, r, c: hidden(torch.cat([x, t], dim=1))[:, :1]  # noqa: E731
    judge = Discriminator(teacher, [hidden], width=16)
    shift = torch.zeros((), requires_grad=True)
    student = lambda x, t, r, c: 0.6 * x + 0.5 - shift  # noqa: E731
    objective, n = Ladd(warmup=100, r1=0.0), 256
    optimizer = torch.optim.Adam(judge.heads.parameters(), 1e-2)
    generator, networks = torch.Generator().manual_seed(0), Nets(student, teacher, student, discriminator=judge)

    def step(number):
        x = 1.5 + 0.4 * torch.randn(n, 1, generator=generator)
        drawn: Draw = objective.draw((n, 1), generator)
        return list(objective.terms(networks, Batch(empty_condition(n), empty_condition(1), x), drawn, number))

    for number in range(100):
        optimizer.zero_grad()
        (told,) = step(number)
        told.value.backward()
        optimizer.step()
    assert told.value < 1.5 and told.logs["on_real"] > told.logs["on_fake"]
    _, moved = step(100)
    (slope,) = torch.autograd.grad(moved.value, shift)
    assert slope < -0.01, "descent raises the shift, and with it every sample"


def test_sana_sprint_is_continuous_consistency_and_ladd_with_its_generator_weighed():
    networks, one, whole = nets(), batch(), SanaSprint(adversarial_weight=0.25, tangent_warmup=7)
    drawn = draw(whole)
    consistency, told, generator = whole.terms(networks, one, drawn, 5)
    (alone,) = Consistency(form="continuous", tangent_warmup=7).terms(
        networks, one, Draw(drawn.noises[2:], drawn.times[2:]), 5
    )
    told_alone, generator_alone = Ladd().terms(networks, one, Draw(drawn.noises[:2], drawn.times[:2]), 5)
    assert torch.equal(consistency.value, alone.value) and torch.equal(told.value, told_alone.value)
    torch.testing.assert_close(generator.value, 0.25 * generator_alone.value)
    with pytest.raises(ValueError, match="write tangent_warmup = 300"):
        SanaSprint(tangent_warmup=0)


# The real teacher


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_the_features_are_the_pretrained_models_whatever_the_student_has_learnt(mode):
    student = Student(embedded(), mode, rank=4, heads=[1, 3])
    x, t, c = inputs(student.backbone)
    judge = student.nets().discriminator
    with torch.no_grad():
        before = judge.features(x, t, c)
        perturb(student)
        after = judge.features(x, t, c)
    assert len(before) == 2 and all(one.shape[-1] == student.backbone.width for one in before)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert judge.logits(before).shape == (3, 2 * before[0].shape[1])
    assert not any(block._forward_hooks for block in judge.blocks)


def test_heads_are_the_seeds_and_belong_to_what_trains():
    first, again, other = (Student(embedded(), "lora", rank=4, seed=seed, heads=[0]) for seed in (1, 1, 2))
    names = [name for name in first.trained if name.startswith("head.")]
    assert names and all(torch.equal(first.trained[name], again.trained[name]) for name in names)
    assert any(not torch.equal(first.trained[name], other.trained[name]) for name in names)
    assert not any("head" in name for name in first.backbone.network.state_dict()), "nor are they exported"
    assert not set(names) & set(first.average) and Student(embedded(), "lora", rank=4).nets().discriminator is None


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_it_trains_the_real_pipeline_leaves_the_teacher_alone_and_resumes_bitwise(tune, tmp_path):
    settings = ("ladd", f"model.tune={tune}")
    made = trainer_of(*settings)
    x, t, c = inputs(made.student.backbone)
    with torch.no_grad():
        before = made.student.teacher(x, t, t, c)
    heads = {name: weight.detach().clone() for name, weight in made.student.trained.items() if name[:5] == "head."}
    whole = run_to_end(made, tmp_path / "whole")
    assert any(not torch.equal(heads[name], whole.weights[name]) for name in heads)
    with torch.no_grad():
        assert torch.equal(made.student.teacher(x, t, t, c), before)
    assert_resumes(lambda: trainer_of(*settings), tmp_path, whole, 1)


def test_its_cost_is_counted_with_the_discriminators():
    """One student with its gradient, the teacher on real and generated points, back through it; and three heads."""
    whole, one_head = (Plane(Ring(), 1).cost(Ladd(every=every, r1=0.0)).evaluations for every in (1, 3))
    assert 6 < one_head < whole < 9
