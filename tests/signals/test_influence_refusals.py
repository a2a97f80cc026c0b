import pytest
from tiny_models import Quadratic, domains, llama, quadratic_batch, rows, targets

from tikmix_hf.signals import GroupInfluence


@pytest.mark.parametrize("name", ["identity", "sign"])
def test_a_loss_that_is_not_finite_names_its_batch(name):
    model = Quadratic([1.0, 2.0])
    good, bad = quadratic_batch([0.0, 0.0]), quadratic_batch([0.0, float("nan")])
    influence = GroupInfluence(model, preconditioner=name)
    with pytest.raises(FloatingPointError, match="domain 'web', batch 1: the loss"):
        influence.measure({"web": [good, bad]}, {"arc": [good]})
    with pytest.raises(FloatingPointError, match="target 'arc', batch 0: the loss"):
        influence.measure({"web": [good]}, {"arc": [bad]})


class InfiniteSlope(Quadratic):
    def forward(self, input_ids, labels, centre, use_cache):
        output = super().forward(input_ids, labels, centre, use_cache)
        output.loss = output.loss + (self.theta - centre).abs().sum().sqrt()
        return output


def test_a_gradient_that_is_not_finite_under_a_finite_loss_names_its_batch():
    model = InfiniteSlope([1.0, 2.0])  # sqrt has no slope at 0
    good, bad = quadratic_batch([0.0, 0.0]), quadratic_batch([1.0, 2.0])
    for name in ("identity", "sign"):
        with pytest.raises(FloatingPointError, match="domain 'web', batch 2: the gradient"):
            GroupInfluence(model, preconditioner=name).measure(
                {"web": [good, good, bad]}, {"arc": [good]}
            )


def test_bad_batches_are_refused_by_name():
    influence = GroupInfluence(llama(), preconditioner="sign")
    unlabelled = {"input_ids": rows(0, 2)["input_ids"]}
    with pytest.raises(ValueError, match=r"domain 'code', batch 1: a batch must have `labels`"):
        influence.measure({"code": [rows(0, 2), unlabelled]}, targets())
    with pytest.raises(TypeError, match=r"`target_batches`\['arc'\].*Put it in a list"):
        influence.measure(domains(), {"arc": rows(0, 2)})
    with pytest.raises(TypeError, match="`labels` must be a tensor; got list"):
        influence.measure({"web": [{"input_ids": [1], "labels": [1]}]}, targets())
    with pytest.raises(ValueError, match="`domain_batches` must name at least one"):
        influence.measure({}, targets())
    with pytest.raises(ValueError, match="Did you mean 'sign'"):
        GroupInfluence(llama(), preconditioner="sgn")


def test_a_model_without_trainable_parameters_is_refused():
    with pytest.raises(ValueError, match="no trainable parameter"):
        GroupInfluence(llama().requires_grad_(False), preconditioner="sign").measure(
            domains(), targets()
        )
