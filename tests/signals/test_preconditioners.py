import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState
from tiny_models import domains, llama, targets

from tikmix_hf.signals import GroupInfluence, preconditioners
from tikmix_hf.signals.target_gradients import TargetGradients

WHOLE = slice(None)


def stepped(optimizer_class, gradients_of_steps, **settings):
    """One parameter and its optimizer after steps with the given gradients."""
    parameter = torch.nn.Parameter(torch.zeros(len(gradients_of_steps[0]), dtype=torch.float64))
    optimizer = optimizer_class([parameter], lr=0.1, **settings)
    for gradient in gradients_of_steps:
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
    return parameter, optimizer


@pytest.fixture
def accelerate_state():
    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("accelerate_state")
def test_adam_divides_by_the_bias_corrected_root_mean_square_plus_relative_damping():
    steps, beta2, damping = [[1.0, 2.0, 0.0], [3.0, -1.0, 0.0]], 0.9, 0.5
    for settings in ({}, {"amsgrad": True}, {"foreach": True}, {"fused": True}):
        parameter, optimizer = stepped(torch.optim.AdamW, steps, betas=(0.5, beta2), **settings)
        v = [beta2 * (1 - beta2) * a**2 + (1 - beta2) * b**2 for a, b in zip(*steps, strict=True)]
        root = torch.tensor(v, dtype=torch.float64).div(1 - beta2**2).sqrt()
        expected = torch.ones(3, dtype=torch.float64) / (root + damping * root.mean())
        for given in (optimizer, AcceleratedOptimizer(optimizer, device_placement=False)):
            adam = preconditioners.load("adam")([parameter], given, damping)
            gradient = torch.ones(3, dtype=torch.float64)
            torch.testing.assert_close(adam(gradient, 0, WHOLE), expected, rtol=1e-12, atol=0)
            torch.testing.assert_close(
                adam(gradient[1:].expand(4, 2), 0, slice(1, 3)),
                expected[1:].expand(4, 2),
                rtol=1e-12,
                atol=0,
            )
            assert gradient.tolist() == [1.0, 1.0, 1.0]


def test_a_parameter_that_never_got_a_gradient_has_second_moment_zero():
    parameter, optimizer = stepped(torch.optim.Adam, [[2.0, 2.0]])
    unseen = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    optimizer.add_param_group({"params": [unseen]})
    adam = preconditioners.load("adam")([parameter, unseen], optimizer, 0.1)
    # The mean of sqrt(v) runs over all four elements: (2 + 2 + 0 + 0) / 4.
    torch.testing.assert_close(
        adam(torch.ones(2, dtype=torch.float64), 1, WHOLE),
        torch.full((2,), 1 / (0.1 * 1.0), dtype=torch.float64),
    )
    assert unseen not in optimizer.state


def test_adam_needs_an_adam_that_has_stepped_and_says_what_does_not():
    parameter, sgd = stepped(torch.optim.SGD, [[1.0]], momentum=0.9)
    fresh = torch.optim.AdamW([parameter])
    _, other = stepped(torch.optim.AdamW, [[1.0]])
    _, still = stepped(torch.optim.AdamW, [[0.0]])
    for optimizer, fact in (
        (None, "got None"),
        (sgd, "SGD keeps none"),
        (fresh, "has not stepped yet"),
        (other, "one is not in it"),
    ):
        for name in ("adam", "adam_unit"):
            with pytest.raises(ValueError, match=f'{fact}.*Use preconditioner="sign"'):
                preconditioners.load(name)([parameter], optimizer, 0.1)
    with pytest.raises(ValueError, match="not all zero"):
        preconditioners.load("adam")(still.param_groups[0]["params"], still, 0.1)
    with pytest.raises(ValueError, match="`damping` must be positive and finite; got 0"):
        preconditioners.load("adam")([parameter], other, 0)
    with pytest.raises(ValueError, match='Use preconditioner="sign"'):
        GroupInfluence(llama(), preconditioner="adam").measure(domains(), targets())


def test_an_optimizer_with_moments_for_some_parameters_only_is_refused():
    # As Adafactor does: factored moments for matrices, exp_avg_sq for vectors.
    parameter, optimizer = stepped(torch.optim.AdamW, [[1.0, 1.0]])
    moment = optimizer.state[parameter].pop("exp_avg_sq")
    optimizer.state[parameter]["exp_avg_sq_row"] = moment
    with pytest.raises(ValueError, match="AdamW keeps none"):
        preconditioners.load("adam")([parameter], optimizer, 0.1)


def test_sign_and_identity_need_no_optimizer():
    gradient = torch.tensor([-2.0, 0.0, 3.0])
    assert preconditioners.load("sign")([], None, 0.1)(gradient, 0, WHOLE).tolist() == [-1, 0, 1]
    assert preconditioners.load("identity")([], None, 0.1)(gradient, 0, WHOLE) is gradient


def test_every_name_loads_and_states_its_side():
    sides = {name: preconditioners.load(name).side for name in preconditioners.available()}
    assert sides == {
        "identity": "target",
        "adam": "target",
        "adam_unit": "domain",
        "sign": "domain",
    }
    with pytest.raises(ValueError, match=r"got 'adm'\. Did you mean 'adam'"):
        preconditioners.load("adm")


@pytest.mark.parametrize("name", preconditioners.available())
def test_doubling_a_domains_gradient_doubles_a_linear_influence_and_changes_no_other(name):
    torch.manual_seed(0)
    parameter, optimizer = stepped(torch.optim.AdamW, [torch.rand(7).tolist()])
    precondition = preconditioners.load(name)([parameter], optimizer, 0.1)
    held = TargetGradients([parameter], 2)
    held.stacked_P[0].copy_(torch.randn(2, 7))
    even, odd = torch.randn(7).double(), torch.randn(7).double()
    once = held.dots_of_updates(precondition, [even], [odd])
    twice = held.dots_of_updates(precondition, [2 * even], [2 * odd])
    factor = 2 if precondition.side == "target" else 1
    torch.testing.assert_close(twice, factor * once)
