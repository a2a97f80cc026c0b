"""Process of test_live.py: one short training with the trackers that are named, in one folder.

A process of its own: W&B and trackio read their settings when they are imported, and hold on to
what they opened.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tiny import make_arguments, make_dataset, make_targets, make_trainer, rows

from tikmix_hf import TikMixCallback
from tikmix_hf.updates.measurement import Measurement

folder, kinds = Path(sys.argv[1]), sys.argv[2].split(",")
dataset = make_dataset(32)
callback = TikMixCallback(
    dataset,
    targets={**make_targets(), "near3": rows(3, 10)},
    at_steps=[2, 4],
    num_rows=8,
    preconditioner="sign",
    measurement=Measurement(num_rounds=2),
    noise_guard=0.0,
    on_error="raise",
)
arguments = make_arguments(folder, report_to=kinds, run_name="tiny", logging_steps=3)
make_trainer(dataset, callback, arguments).train()
scalars = {record.step: record.scalars() for record in callback.updates}
(folder / "scalars.json").write_text(json.dumps(scalars))
(folder / "modules.json").write_text(json.dumps(sorted(sys.modules)))
