"""A checkpoint's scores on a suite: the same as `tikmix eval`, from a checkout.

    python eval/run.py CHECKPOINT --suite quick --data-dir DIR
    torchrun --nproc_per_node 2 eval/run.py CHECKPOINT --suite paper --samples samples.jsonl

In: a folder or a name on the Hub, with the tokenizer beside it. Out: what
`tikmix_hf.commands.eval` says. The exit status is 1 if a task failed (the others' scores are
written) or the scores could not be written, and 2 if nothing could be asked.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tikmix_hf import cli


def main(words: Sequence[str]) -> int:
    """Scores, writes, and returns the exit status."""
    return cli.main(["eval", *words])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
