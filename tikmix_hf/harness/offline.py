"""Tasks made of held-out text of the run's own domains; they need no download.

`cloze`: the last word of a passage. `continuation`: which of four continuations is the real one;
the others are from other passages of the same domain. `bits_per_byte`: of whole passages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tikmix_hf.harness.suite import SuiteTask
from tikmix_hf.harness.tasks import Prepared


def prepare(task: SuiteTask, heldout: Mapping[str, Any], tokenizer: Any) -> Prepared:
    """Makes the task."""
    raise NotImplementedError
