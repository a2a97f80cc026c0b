"""Publishing a schedule: one commit of the schedule, its card and its picture.

In: a schedule and the name of a repository. Out: the address of what the Hub took. What others may
read, and what somebody else wrote, is not changed by the way.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitOperationAdd, DatasetInfo, HfApi, constants
from huggingface_hub.utils import get_session

from tikmix_hf import __version__
from tikmix_hf.schedule import hub_names, hub_refusals, readme
from tikmix_hf.schedule.faults import ScheduleError
from tikmix_hf.schedule.hub import CARD, FILE, NAME, REPLY_SECONDS, REPO_TYPE, save
from tikmix_hf.schedule.hub_settings import Push

if TYPE_CHECKING:
    from tikmix_hf.schedule.schedule import MixtureSchedule


def push(schedule: MixtureSchedule, repo_id: str, how: Push) -> str:
    """Publishes a schedule; see `MixtureSchedule.push_to_hub`."""
    hub_names.check_repo("repo_id", repo_id)
    hub_names.check_license(how.license)
    api = HfApi(token=how.token, library_name=NAME, library_version=__version__)
    with hub_refusals.told(repo_id, how.revision, FILE), _no_endless_silence():
        api.create_repo(repo_id, repo_type=REPO_TYPE, private=how.private, exist_ok=True)
        if how.revision not in (None, constants.DEFAULT_REVISION):
            api.create_branch(repo_id, branch=how.revision, repo_type=REPO_TYPE, exist_ok=True)
        there = api.dataset_info(repo_id, revision=how.revision)
        _check_privacy(there, how.private)
        _check_card(there)
        done = api.create_commit(
            repo_id,
            _files(schedule, repo_id, how.license or _license(there)),
            commit_message=how.commit_message,
            repo_type=REPO_TYPE,
            revision=how.revision,
            create_pr=how.create_pr,
        )
    if done.pr_url is not None:
        return done.pr_url
    address = f"{api.endpoint}/datasets/{repo_id}"
    return address if how.revision is None else f"{address}/tree/{how.revision}"


def _files(
    schedule: MixtureSchedule, repo_id: str, license: str | None
) -> list[CommitOperationAdd]:
    with tempfile.TemporaryDirectory() as folder:
        save(schedule, folder, license=license, repo_id=repo_id)
        return [
            CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=path.read_bytes())
            for path in sorted(Path(folder).iterdir())
        ]


def _check_privacy(there: DatasetInfo, is_private: bool | None) -> None:
    """Refuses to write to a repository that was there before and that others read, or do not."""
    if is_private is not None and bool(there.private) != is_private:
        kind = "private" if there.private else "public"
        raise ScheduleError(
            f"`private` is {is_private}, but {there.id} is there already and {kind}; nothing was "
            "pushed. Change that in its settings, or name another repository."
        )


def _check_card(there: DatasetInfo) -> None:
    """Refuses to write over a card that somebody wrote of something else."""
    has_card = any(file.rfilename == CARD for file in there.siblings or ())
    tags = _said(there, "tags")
    if has_card and not (isinstance(tags, list) and readme.TAGS[0] in tags):
        raise ScheduleError(
            f"{there.id} is there already, and its {CARD} is not of a schedule; nothing was "
            "pushed. Name a repository of its own for the schedule."
        )


def _license(there: DatasetInfo) -> str | None:
    """The licence that an earlier push gave."""
    known = _said(there, "license")
    return known if hub_names.is_license(known) else None


def _said(there: DatasetInfo, key: str) -> Any:
    """What the card says, which is anybody's text."""
    return None if there.card_data is None else there.card_data.to_dict().get(key)


@contextmanager
def _no_endless_silence() -> Iterator[None]:
    """Bounds the client's waiting, which has no end where it makes and commits to repositories."""
    session = get_session()
    before = session.timeout
    if before.read is None:
        session.timeout = REPLY_SECONDS
    try:
        yield
    finally:
        session.timeout = before
