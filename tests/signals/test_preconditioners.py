import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState
from tiny_models import domains, llama, targets

from tikmix_hf.signals import GroupInfluence, preconditioners
from tikmix_hf.signals.preconditioners import Fitting


def fitted(name, parameters, optimizer=None, **settings):
    """H^-1 of a preconditioner that looks at no model."""
    fitting = Fitting(
        model=torch.nn.Module(), parameters=parameters, optimizer=optimizer, batches={}
    )
    return preconditioners.load(name)(**settings).fit(fitting)


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
            adam = fitted("adam", [parameter], given, damping=damping)
            (update,) = adam([torch.ones(3, dtype=torch.float64)])
            torch.testing.assert_close(update, expected, rtol=1e-12, atol=0)
            (unit,) = fitted("adam_unit", [parameter], given, damping=damping)(
                [torch.full((3,), 7.0, dtype=torch.float64)]
            )
            torch.testing.assert_close(unit, expected / expected.norm(), rtol=1e-12, atol=0)


def test_a_parameter_that_never_got_a_gradient_has_second_moment_zero():
    parameter, optimizer = stepped(torch.optim.Adam, [[2.0, 2.0]])
    unseen = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    optimizer.add_param_group({"params": [unseen]})
    adam = fitted("adam", [parameter, unseen], optimizer)
    # The mean of sqrt(v) runs over all four elements: (2 + 2 + 0 + 0) / 4.
    torch.testing.assert_close(
        adam([torch.ones(2, dtype=torch.float64) for _ in range(2)])[1],
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
                fitted(name, [parameter], optimizer)
    with pytest.raises(ValueError, match="not all zero"):
        fitted("adam", still.param_groups[0]["params"], still)
    with pytest.raises(ValueError, match="`damping` must be positive and finite; got 0"):
        preconditioners.load("adam")(damping=0)
    with pytest.raises(ValueError, match='Use preconditioner="sign"'):
        GroupInfluence(llama(), preconditioner="adam").measure(domains(), targets())


def test_an_optimizer_with_moments_for_some_parameters_only_is_refused():
    # As Adafactor does: factored moments for matrices, exp_avg_sq for vectors.
    parameter, optimizer = stepped(torch.optim.AdamW, [[1.0, 1.0]])
    moment = optimizer.state[parameter].pop("exp_avg_sq")
    optimizer.state[parameter]["exp_avg_sq_row"] = moment
    with pytest.raises(ValueError, match="AdamW keeps none"):
        fitted("adam", [parameter], optimizer)


def test_a_second_moment_of_another_shape_is_refused():
    # As an 8-bit or a factored one may have it.
    parameter, optimizer = stepped(torch.optim.AdamW, [[1.0, 1.0]])
    optimizer.state[parameter]["exp_avg_sq"] = torch.ones(1, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"element by element; AdamW keeps the shape \(1,\)"):
        fitted("adam", [parameter], optimizer)


def test_sign_and_identity_need_no_optimizer():
    gradient = torch.tensor([-2.0, 0.0, 3.0])
    assert fitted("identity", [])([gradient])[0] is gradient
    assert fitted("sign", [])([gradient])[0].tolist() == [-1, 0, 1]


def test_every_name_loads_and_states_its_side():
    sides = {name: preconditioners.load(name).side for name in preconditioners.available()}
    assert {name for name, side in sides.items() if side == "domain"} == {"sign", "adam_unit"}
    assert set(sides.values()) == {"target", "domain"}
    for name in preconditioners.available():
        assert preconditioners.load(name)().name == name
    with pytest.raises(ValueError, match=r"got 'adm'\. Did you mean 'adam'"):
        preconditioners.load("adm")


@pytest.mark.parametrize("name", ["adam", "adam_unit", "identity", "sign"])
def test_doubling_a_gradient_doubles_a_linear_update_and_changes_no_other(name):
    torch.manual_seed(0)
    parameter, optimizer = stepped(torch.optim.AdamW, [torch.rand(7).tolist()])
    precondition = fitted(name, [parameter], optimizer)
    gradient = torch.randn(7).double()
    (once,) = precondition([gradient.clone()])
    (twice,) = precondition([2 * gradient])
    factor = 2 if preconditioners.load(name).side == "target" else 1
    torch.testing.assert_close(twice, factor * once)


def test_a_zero_gradient_has_no_unit_norm_and_no_influence():
    parameter, optimizer = stepped(torch.optim.AdamW, [[1.0, 1.0]])
    (update,) = fitted("adam_unit", [parameter], optimizer)([torch.zeros(2).double()])
    assert update.tolist() == [0.0, 0.0]
