import pytest
import torch

from tikmix_hf.signals import preconditioners
from tikmix_hf.signals.target_gradients import TargetGradients


@pytest.fixture
def held():
    """Three targets over two parameters, the second longer than one piece."""
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.zeros(5, 3)), torch.nn.Parameter(torch.zeros(70_001))]
    targets = TargetGradients(parameters, 3)
    for stacked in targets.stacked_P:
        stacked.copy_(torch.randn(stacked.shape, generator=generator))
    return targets


def flat(gradient_P):
    return torch.cat([one.double().flatten() for one in gradient_P])


def noise(seed):
    generator = torch.Generator().manual_seed(seed)
    # Not contiguous, as gradients of transposed weights are.
    return [torch.randn(3, 5, generator=generator).T, torch.randn(70_001, generator=generator)]


def test_dots_equal_those_of_whole_float64_vectors(held):
    gradient_P = noise(1)
    expected = torch.stack([flat(held[j]) @ flat(gradient_P) for j in range(3)])
    scale = torch.stack([flat(held[j]).norm() * flat(gradient_P).norm() for j in range(3)])
    # Pairwise float32 sums: one rounding per product, which average out.
    assert ((held.dots(gradient_P) - expected).abs() <= 2.0**-24 * scale).all()
    assert held.dots(gradient_P).dtype == torch.float64


def test_an_unreached_parameter_adds_nothing(held):
    gradient_P = noise(1)
    zero = [torch.zeros(5, 3), gradient_P[1]]
    assert torch.equal(held.dots([None, gradient_P[1]]), held.dots(zero))


def test_dots_do_not_go_through_reduced_precision_matrix_products(held):
    gradient_P = noise(1)
    expected = held.dots(gradient_P)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(held.dots(gradient_P), expected)


def test_updates_of_a_whole_and_its_halves_are_preconditioned_separately(held):
    even_P, odd_P = ([one.contiguous() for one in noise(seed)] for seed in (2, 3))
    sign = preconditioners.load("sign")([], None, 0.1)
    dots_3J = held.dots_of_updates(sign, even_P, odd_P)
    for i, whole in enumerate((flat(even_P) + flat(odd_P), flat(even_P), flat(odd_P))):
        for j in range(3):
            expected = flat(held[j]) @ whole.sign()
            assert abs(dots_3J[i, j] - expected) <= 2.0**-24 * flat(held[j]).abs().sum()


def test_norms_run_over_all_parameters(held):
    expected = torch.stack([flat(held[j]).norm() for j in range(3)])
    torch.testing.assert_close(held.norms(), expected, rtol=1e-6, atol=0)
