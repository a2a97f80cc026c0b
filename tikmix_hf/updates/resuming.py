"""Resuming: what a checkpoint keeps of a run's updates, and how a run takes it up.

In: a `MixtureUpdater`. Out: JSON types under a checksum; from them the same updater again, or one
error that names what does not fit.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from tikmix_hf.checkpoint import check_same, seal, unseal
from tikmix_hf.schedule import MixtureSchedule
from tikmix_hf.updates.probing import Probing
from tikmix_hf.updates.updater import MixtureUpdater

logger = logging.getLogger(__name__)


def state(updater: MixtureUpdater) -> dict[str, Any]:
    """Returns what a checkpoint keeps, as JSON types under a checksum."""
    layout = updater.layout
    content = {
        "schedule": updater.dataset.schedule.to_dict(),
        "data": updater.data_identity,
        "layout": None if layout is None else layout.identity(),
        "mixer": {
            "settings": updater.mixer.describe(),
            "state": updater.mixer_state._asdict(),
        },
        "counters": updater.account.state(),
        "audit": updater.auditor.state(),
        "heard": updater.gatherer.state(),
        "probing": updater.prober.probing,
    }
    return seal(content)


def resume(updater: MixtureUpdater, saved: Any, step: int) -> None:
    """Takes up the schedule, the mixer's state and the counters of a checkpoint.

    Args:
        updater: of the run that goes on.
        saved: what `state` returned, through JSON.
        step: optimizer steps that the checkpoint had done.

    Raises:
        ValueError: the checkpoint is damaged, or was made with other data or batches.
    """
    assert updater.layout is not None
    origin = f"the checkpoint of step {step}"
    content = unseal(saved, origin=origin)
    parts = {"data": updater.data_identity, "layout": updater.layout.identity()}
    for what, mine in parts.items():
        check_same(what, content[what], mine, origin=origin)
    updater.dataset.load_schedule(MixtureSchedule.from_dict(content["schedule"], origin=origin))
    mixer = updater.mixer
    if _without_constraints(content["mixer"]["settings"]) == _without_constraints(mixer.describe()):
        updater.mixer_state = mixer.restore(content["mixer"]["state"])
    else:
        logger.warning("%s was made with another mixer; %s starts anew.", origin, mixer.describe())
    updater.account.resume(content["counters"])
    updater.auditor.resume(content["audit"], origin)
    updater.gatherer.resume(content["heard"])
    probing = content["probing"]
    updater.prober.probing = None if probing is None else Probing.restore(probing)


def _without_constraints(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a mixer's state depends on."""
    return {name: value for name, value in settings.items() if name != "constraints"}
