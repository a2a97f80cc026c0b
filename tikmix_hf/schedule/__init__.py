"""MixtureSchedule: which mixture is in force from which sample on; its file, and what to do to it.

In: domain names, mixtures and the samples they start at. Out: a JSON file that others read, plot,
compare, cut to the length of their own run and replay as the `mixture` of an
`InterleavedDomainDataset`. Reading executes nothing and is bounded in size.
"""

from tikmix_hf.schedule import provenance
from tikmix_hf.schedule.cards import cards_of
from tikmix_hf.schedule.comparison import Interval, ScheduleDiff
from tikmix_hf.schedule.counting import counted
from tikmix_hf.schedule.faults import ScheduleError
from tikmix_hf.schedule.format import FORMAT, VERSION, schema
from tikmix_hf.schedule.parts import DomainCard, Run, Segment
from tikmix_hf.schedule.reading import MAX_BYTES
from tikmix_hf.schedule.schedule import MixtureSchedule

__all__ = [
    "FORMAT",
    "MAX_BYTES",
    "VERSION",
    "DomainCard",
    "Interval",
    "MixtureSchedule",
    "Run",
    "ScheduleDiff",
    "ScheduleError",
    "Segment",
    "cards_of",
    "counted",
    "provenance",
    "schema",
]
