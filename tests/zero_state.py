"""What passes through a model under ZeRO-3 move, and must have put back."""

from contextlib import contextmanager


def moved_by_passes(module):
    """What the hooks that ZeRO-3 put on parameters move; ZeRO-2's are never asked."""
    zero = vars(next(module.parameters())).get("_z3_optimizer")
    if zero is None:
        return {}
    hooks = dict(vars(zero._backward_hook_state))
    return {
        "gradients": zero.grad_partitions_flat_buffer.tolist(),
        "handed to the optimizer": [
            None if group.grad is None else group.grad.tolist()
            for group in zero.fp32_partitioned_groups_flat
        ],
        "microbatch": zero.micro_step_id,
        "boundary": zero.is_gradient_accumulation_boundary(),
        "parameters to step": set(zero._offload_boundary_param_ids),
        "hooks": {name: value for name, value in hooks.items() if name != "_grad_acc_post_hooks"},
    }


def gathered(module):
    """Parameters of which this rank still holds more than its shard; some of ZeRO-3's persist."""
    return [
        name
        for name, parameter in module.named_parameters()
        if "ds_id" in vars(parameter)
        and not parameter.ds_persist
        and parameter.ds_status.name != "NOT_AVAILABLE"
    ]


@contextmanager
def unmoved(parallel):
    before = moved_by_passes(parallel.module)
    yield
    after = moved_by_passes(parallel.module)
    assert after == before, [what for what in before if after[what] != before[what]]
    assert not gathered(parallel.module)
