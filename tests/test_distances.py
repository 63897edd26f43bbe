"""FID and KID: closed forms, torchmetrics itself on pictures, and what must not matter."""

import pytest
import torch
from torch import nn

from apexgen.evaluate.distances import FEW, fid, kid, warning


def exact_sample(n, mean, covariance, generator):
    """Features whose sample mean and covariance are these exactly."""
    raw = torch.randn(n, len(mean), generator=generator, dtype=torch.float64)
    raw = raw - raw.mean(dim=0)
    white = raw @ torch.linalg.inv(torch.linalg.cholesky(raw.mT @ raw / (n - 1))).mT
    return white @ torch.linalg.cholesky(covariance).mT + mean


def random_covariance(width, generator):
    factor = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return factor @ factor.mT / width + 0.1 * torch.eye(width, dtype=torch.float64)


def root(matrix):
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.mT


def test_fid_is_the_frechet_distance_of_two_gaussians(generator):
    width = 6
    means = torch.randn(2, width, generator=generator, dtype=torch.float64)
    s, other = (random_covariance(width, generator) for _ in range(2))
    real, drawn = (exact_sample(50, m, c, generator) for m, c in zip(means, (s, other), strict=True))
    cross = root(root(s) @ other @ root(s)).trace()
    expected = (means[0] - means[1]).square().sum() + s.trace() + other.trace() - 2 * cross
    assert fid(real, drawn) == pytest.approx(float(expected), rel=1e-8)
    assert fid(real, drawn) == pytest.approx(fid(drawn, real), rel=1e-8)
    assert fid(real, real) == pytest.approx(0, abs=1e-6)


def test_fid_of_one_feature_is_the_squared_differences_of_mean_and_deviation(generator):
    one = torch.ones(1, 1, dtype=torch.float64)
    real = exact_sample(40, torch.tensor([1.0], dtype=torch.float64), 4 * one, generator)
    drawn = exact_sample(30, torch.tensor([-2.0], dtype=torch.float64), 25 * one, generator)
    assert fid(real, drawn) == pytest.approx(3**2 + (5 - 2) ** 2)


class Features(nn.Module):
    """A network on uint8 pictures (B, 3, 8, 8)."""

    num_features = 5

    def __init__(self):
        super().__init__()
        self.weight = torch.randn(3 * 8 * 8, 5, generator=torch.Generator().manual_seed(2)) / 100

    def forward(self, pictures):
        return pictures.flatten(1).float() @ self.weight


def test_both_are_what_torchmetrics_says_of_the_pictures(generator):
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    network = Features()
    real = torch.randint(0, 200, (60, 3, 8, 8), generator=generator).to(torch.uint8)
    drawn = torch.randint(50, 256, (40, 3, 8, 8), generator=generator).to(torch.uint8)
    theirs = (
        FrechetInceptionDistance(feature=network),
        KernelInceptionDistance(feature=network, subset_size=40, subsets=100),
    )
    for metric in theirs:
        metric.update(real, real=True)
        metric.update(drawn, real=False)
    torch.manual_seed(5)
    ours = kid(network(real), network(drawn), seed=5)
    assert fid(network(real), network(drawn)) == pytest.approx(float(theirs[0].compute()), rel=1e-4)
    mean, deviation = theirs[1].compute()
    assert (ours.value, ours.deviation) == pytest.approx((float(mean), float(deviation)), rel=1e-4)
    assert ours.subset == 40


def test_kid_of_equal_distributions_is_zero_on_average_where_fid_is_not(generator):
    trials = [[torch.randn(40, 4, generator=generator) for _ in range(2)] for _ in range(200)]
    values = torch.tensor([kid(*pair, seed=0).value for pair in trials])
    assert abs(values.mean()) < 4 * values.std() / len(values) ** 0.5
    assert (values < 0).any()  # an unbiased estimate of zero must fall below it
    few = sum(fid(*pair) for pair in trials[:50]) / 50
    many = fid(*torch.randn(2, 4000, 4, generator=generator))
    assert few > 10 * many > 0


def test_kid_of_known_features():
    """By hand, width 1: k(x, y) = (x y + 1)^3 without the diagonal."""
    real, drawn = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]])
    within_real, within_drawn = 1.0, 7.0**3
    across = (1 + 1 + 3**3 + 4**3) / 4
    assert kid(real, drawn, seed=0).value == pytest.approx(within_real + within_drawn - 2 * across)


def test_neither_the_order_nor_the_global_generator_matters(generator):
    real, drawn = torch.randn(1200, 3, generator=generator), torch.randn(50, 3, generator=generator) + 1
    shuffled = drawn[torch.randperm(50, generator=generator)]
    assert fid(real, drawn) == pytest.approx(fid(real, shuffled), rel=1e-9)
    state = torch.get_rng_state()
    first = kid(real, drawn, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(77)
    assert kid(real, drawn, seed=1) == first != kid(real, drawn, seed=2)


def test_too_few_pictures_are_told_of_or_refused():
    assert warning({"all": FEW}) is None and "(art 9,999)" in warning({"all": FEW, "art": FEW - 1})
    with pytest.raises(ValueError, match="1 drawn pictures have no distribution"):
        fid(torch.zeros(5, 2), torch.zeros(1, 2))
