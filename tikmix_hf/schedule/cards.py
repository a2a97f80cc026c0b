"""The cards of a run's domains: what a schedule says of them to those who have not got them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from tikmix_hf.schedule.parts import DomainCard


class Described(Protocol):
    """A domain, as far as its card goes; `Domain` is one."""

    @property
    def name(self) -> str:
        """What mixtures call it."""
        ...

    @property
    def description(self) -> str:
        """One line for people."""
        ...

    @property
    def num_tokens(self) -> int:
        """Training tokens."""
        ...

    @property
    def num_rows(self) -> int:
        """Training rows."""
        ...

    def fingerprint(self) -> str:
        """Digest of its name and rows."""
        ...


def cards_of(domains: Iterable[Described]) -> dict[str, DomainCard]:
    """A card for each domain, by name; some rows of each are looked at."""
    return {
        domain.name: DomainCard(
            description=domain.description,
            num_tokens=domain.num_tokens,
            num_rows=domain.num_rows,
            fingerprint=domain.fingerprint(),
        )
        for domain in domains
    }
