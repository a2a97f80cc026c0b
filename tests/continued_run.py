"""A pre-training recipe twice on every rank that `accelerate launch` starts: once unbroken, once
from what a kill would have left: `continued_run.py RECIPE FOLDER`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes"))  # as running the script does

import pretrain
from torch import distributed as dist


def main(config: str, folder: Path) -> None:
    pretrain.main(["--config", config, "--output_dir", str(folder / "whole")])
    assert dist.get_world_size() == 2
    if dist.get_rank() == 0:  # a kill after the last update, and before the last save
        for name in ("checkpoint-4", "schedule.json", "influence.jsonl"):
            there = folder / "killed" / name
            there.parent.mkdir(exist_ok=True)
            (shutil.copytree if name == "checkpoint-4" else shutil.copy)(
                folder / "whole" / name, there
            )
    dist.barrier()
    pretrain.main(["--config", config, "--output_dir", str(folder / "killed")])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
