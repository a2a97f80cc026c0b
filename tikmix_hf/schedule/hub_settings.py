"""How a schedule is published and fetched: what goes to the Hub besides its name.

In: words of people. Out: frozen settings that the Hub can take.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from tikmix_hf.schedule import hub_names, reading
from tikmix_hf.schedule.faults import fault


@dataclass(frozen=True, kw_only=True, slots=True)
class Push:
    """How a schedule is published.

    Raises:
        ScheduleError: a word that the Hub does not take.
    """

    private: bool | None = None
    """Who may read it; None is the owner's default, or as it is."""
    token: str | bool | None = None
    """None takes the environment's or the login's; False takes none."""
    revision: str | None = None
    """Branch; None is "main"."""
    commit_message: str = "Upload the mixture schedule"
    """Of the one commit."""
    license: str | None = None
    """As the Hub names it; checked where the card is written."""
    create_pr: bool = False
    """Opens a pull request instead of committing."""

    def __post_init__(self) -> None:
        hub_names.check_token(self.token)
        hub_names.check_revision(self.revision)
        if not self.commit_message.strip():
            raise fault("commit_message", "text", self.commit_message, "Say what is pushed.")
        if self.create_pr and self.revision is not None:
            mend = "A pull request is against main."
            raise fault("revision", "None with create_pr=True", self.revision, mend)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pull:
    """How a schedule is fetched.

    Raises:
        ScheduleError: a word that the Hub does not take.
    """

    revision: str | None = None
    """A branch, a tag or a commit; None is "main"."""
    token: str | bool | None = None
    """None takes the environment's or the login's; False takes none."""
    cache_dir: str | os.PathLike[str] | None = None
    """None takes huggingface_hub's."""
    local_files_only: bool = False
    """Asks the cache alone."""
    max_bytes: int = reading.MAX_BYTES
    """Size beyond which nothing is fetched."""

    def __post_init__(self) -> None:
        hub_names.check_token(self.token)
        hub_names.check_revision(self.revision)
