"""No run reads a domain more often than its constraints allow, whatever the lengths of its rows."""

from __future__ import annotations

import pytest
from tiny import make_arguments, make_targets, make_trainer, rows

from tikmix_hf import Constraints, Domains, InterleavedDomainDataset, TikMixCallback, mixers


@pytest.mark.parametrize(
    ("mixer", "settings"),
    [
        ("uniform", {}),
        ("unimax", {"max_epochs": 1.0}),
        ("schedule", {"segments": ((0, {"long": 1.0}), (100, {"short": 1.0}))}),
    ],
)
@pytest.mark.parametrize(
    ("start", "num_long", "num_short"), [(0.95, 30, 385), (0.05, 30, 385), (0.95, 300, 150)]
)
def test_no_domain_is_read_more_often_than_once_where_rows_differ_in_length(
    tmp_path, mixer, settings, start, num_long, num_short
):
    """400 samples; the uniform mixture would read 36 long rows and 364 short ones."""
    train = {
        "long": rows(0, num_long, lengths=[60] * num_long),
        "short": rows(1, num_short, lengths=[6] * num_short),
    }
    domains = Domains.from_datasets(train, heldout={"long": rows(0, 4), "short": rows(1, 4)})
    dataset = InterleavedDomainDataset(domains, [start, 1 - start], num_samples=400)
    constraints = None if mixer == "unimax" else Constraints(max_epochs=1)
    mixer = mixers.load(mixer)(**settings, constraints=constraints)
    callback = TikMixCallback(
        dataset, targets=make_targets(), mixer=mixer, at_steps=(2, 3), progress=False
    )
    make_trainer(
        dataset, callback, make_arguments(tmp_path, per_device_train_batch_size=50)
    ).train()
    long, short = dataset.num_served(400)
    assert long <= num_long + 1
    assert short <= num_short + 1
    # And none is held back: one of them is read to its end.
    assert long >= num_long - 1 or short >= num_short - 1
