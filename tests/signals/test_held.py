import pytest
import torch

from tikmix_hf.signals.held import HeldGradients

PARAMETERS = [torch.zeros(5, 3), torch.zeros(70_001)]  # the second is longer than one piece


def noise(seed):
    generator = torch.Generator().manual_seed(seed)
    # Not contiguous, as gradients of transposed weights are.
    return [torch.randn(3, 5, generator=generator).T, torch.randn(70_001, generator=generator)]


@pytest.fixture(params=[False, True], ids=["in place", "offloaded"])
def held(request):
    """Three gradients and one half of each."""
    gradients = HeldGradients(PARAMETERS, 3, num_halves=1, offload=request.param)
    for n in range(3):
        gradients.put_whole(n, noise(10 + n))
        gradients.put_half(n, 0, noise(20 + n))
    return gradients


def flat(gradient_P):
    return torch.cat([one.double().flatten() for one in gradient_P])


def test_dots_equal_those_of_whole_float64_vectors(held):
    streamed = flat(noise(1))
    dots_HN = held.dots(noise(1))
    for n in range(3):
        whole, half = flat(noise(10 + n)), flat(noise(20 + n))
        # Pairwise float32 sums: one rounding per product, which average out.
        assert abs(dots_HN[0, n] - whole @ streamed) <= 2.0**-24 * whole.norm() * streamed.norm()
        # bfloat16 has 8 bits; its roundings average out as well.
        error = abs(dots_HN[1, n] - half @ streamed)
        assert error <= 2.0**-7 * (half * streamed).norm()
    assert dots_HN.dtype == torch.float64
    assert dots_HN.shape == held.shape == (2, 3)


def test_halves_can_be_left_out(held):
    assert torch.equal(held.dots(noise(1), halves=False), held.dots(noise(1))[:1])


def test_an_unreached_parameter_adds_nothing(held):
    gradient_P = noise(1)
    zero = [torch.zeros(5, 3), gradient_P[1]]
    assert torch.equal(held.dots([None, gradient_P[1]]), held.dots(zero))


def test_dots_do_not_go_through_reduced_precision_matrix_products(held):
    expected = held.dots(noise(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(held.dots(noise(1)), expected)


def test_squares_run_over_all_parameters(held):
    expected = torch.stack([flat(noise(10 + n)).square().sum() for n in range(3)])
    torch.testing.assert_close(held.squares(), expected, rtol=1e-6, atol=0)


def test_wholes_are_kept_in_float32_at_least_and_halves_in_two_bytes():
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        held = HeldGradients([torch.zeros(3, dtype=dtype)], 1, num_halves=1, offload=False)
        assert held.whole_P[0].dtype == torch.promote_types(dtype, torch.float32)
        assert held._halves_HP[0][0].dtype == torch.bfloat16
