"""BatchLayout against the loader that the Trainer really makes."""

from __future__ import annotations

import pytest
from tiny import make_arguments, make_dataset, make_trainer
from torch.utils.data import Dataset
from transformers import TrainerCallback

from tikmix_hf.order.layout import BatchLayout
from tikmix_hf.trainer_checks import check_length, layout_of


class _Watch(TrainerCallback):
    """Writes down, after every step, the first sample that no loader has asked for."""

    def __init__(self, dataset) -> None:
        self.dataset, self.asked, self.layout = dataset, {}, None

    def on_step_end(self, args, state, control, **kwargs):
        # A worker may still be about to ask for what was handed to it: wait until all did.
        self.layout = layout_of(args, self.dataset)
        self.asked[state.global_step] = self.dataset._ledger.high_water


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_no_loader_is_ahead_of_the_first_free_sample(tmp_path, workers, accumulation):
    dataset = make_dataset(num_samples=4 * accumulation * 12)
    watch = _Watch(dataset)
    arguments = make_arguments(
        tmp_path,
        gradient_accumulation_steps=accumulation,
        dataloader_num_workers=workers,
        train_sampling_strategy="sequential",
    )
    make_trainer(dataset, None, arguments, extra=[watch]).train()
    layout = watch.layout
    assert len(watch.asked) == 12
    for step, asked in watch.asked.items():
        assert asked <= max(layout.first_free_sample(step), layout.samples_before(step))
        if workers == 0 and step < 12:  # not farther ahead than need be: one batch, a whole step
            assert asked == layout.samples_before(step) + layout.batch
            assert layout.first_free_sample(step) == layout.samples_before(step + 1)


@pytest.mark.parametrize(
    ("layout", "step", "before"),
    [
        (BatchLayout(num_samples=100, per_device=4, world_size=2, accumulation=3), 2, 48),
        (BatchLayout(num_samples=100, per_device=4, world_size=2, accumulation=3), 5, 100),
        (BatchLayout(num_samples=100, per_device=4, world_size=2, accumulation=3), 7, 148),
        (BatchLayout(num_samples=96, per_device=4, world_size=1, accumulation=1), 30, 120),
        (
            BatchLayout(num_samples=10, per_device=4, world_size=1, accumulation=1, drop_last=True),
            3,
            14,
        ),
    ],
)
def test_steps_and_samples_as_worked_out_by_hand(layout, step, before):
    # 100 samples in batches of 8, three to a step: 13 batches, 5 steps, the last of one batch of 4.
    # 10 samples without the last batch: 2 steps of 4 an epoch; step 3 is the first of epoch 1.
    assert layout.samples_before(step) == before


def test_the_formula_of_the_look_ahead():
    layout = BatchLayout(
        num_samples=10_000,
        per_device=4,
        world_size=2,
        accumulation=2,
        num_workers=3,
        prefetch_factor=4,
    )
    # After step 5 a rank has been handed 5 * 2 + 1 + 3 * 4 = 23 batches: 12 steps, rounded up.
    assert layout.first_free_sample(5) == 12 * 2 * 8


def test_a_ragged_epoch_is_read_to_its_end_and_the_next_goes_on(tmp_path):
    dataset = make_dataset(num_samples=22)
    arguments = make_arguments(
        tmp_path,
        gradient_accumulation_steps=2,
        num_train_epochs=2,
        train_sampling_strategy="sequential",
    )
    trainer = make_trainer(dataset, None, arguments)
    trainer.train()
    layout = layout_of(arguments, dataset)
    assert trainer.state.global_step == 2 * layout.steps_per_epoch == 6
    assert layout.samples_before(6) == 44
    assert len(trainer.model.read) == 44


def test_the_dataset_is_a_map_style_dataset():
    assert isinstance(make_dataset(), Dataset)


def test_a_change_lies_behind_the_one_announced_before():
    layout = BatchLayout(num_samples=1000, per_device=4, world_size=1, accumulation=1)
    assert layout.first_free_sample(5) == 24
    assert layout.first_free_sample(5, after=23) == 24
    assert layout.first_free_sample(5, after=24) == 28
    assert layout.first_free_sample(5, after=50) == 52


def test_a_ragged_last_batch_over_two_processes_is_refused(tmp_path):
    arguments = make_arguments(tmp_path)
    options = {"num_samples": 50, "per_device": 4, "world_size": 2, "accumulation": 1}
    layout = BatchLayout(**options)
    with pytest.raises(
        ValueError, match=r"`num_samples` must be a multiple of 8 .* num_samples=48"
    ):
        check_length(arguments, layout, max_steps=7)
    check_length(arguments, layout, max_steps=6)  # ends before the ragged batch
    check_length(arguments, BatchLayout(**options, drop_last=True), max_steps=7)


def test_the_layout_is_read_off_the_arguments(tmp_path):
    arguments = make_arguments(
        tmp_path,
        gradient_accumulation_steps=3,
        dataloader_drop_last=True,
        dataloader_num_workers=2,
        dataloader_prefetch_factor=5,
    )
    expected = BatchLayout(
        num_samples=96,
        per_device=4,
        world_size=1,
        accumulation=3,
        drop_last=True,
        num_workers=2,
        prefetch_factor=5,
    )
    assert layout_of(arguments, make_dataset()) == expected
    assert expected.identity() == {
        "num_samples": 96,
        "per_device": 4,
        "world_size": 1,
        "accumulation": 3,
        "drop_last": True,
    }
