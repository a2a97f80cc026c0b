"""Schedules in folders and on the Hub.

In: a schedule and the name of a repository, or the name alone. Out: one commit of three files, or
the schedule. A schedule is published as a *dataset* repository: it holds no weights that a model's
page could run, and it is found among the data that it mixes.

Reading takes one file of a repository, `mixture_schedule.json`, whose size is asked for before
anything is fetched; a body that does not end where it was said to is cut off. Nothing is executed.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import (
    CommitOperationAdd,
    DatasetInfo,
    HfApi,
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.utils import get_session, tqdm

from tikmix_hf import __version__
from tikmix_hf.files import write_text
from tikmix_hf.schedule import hub_names, hub_refusals, reading, readme
from tikmix_hf.schedule.faults import ScheduleError, fault
from tikmix_hf.schedule.hub_settings import Pull, Push

if TYPE_CHECKING:
    from tikmix_hf.schedule.schedule import MixtureSchedule

FILE, RUN_FILE = "mixture_schedule.json", "schedule.json"
"""The schedule in a repository, and in the folder of a run."""
CARD, PLOT = "README.md", "mixture.png"
REPO_TYPE = "dataset"
REPLY_SECONDS = 60.0
"""How long the Hub may be silent while a schedule is pushed."""
MAX_RESTARTS = 3
"""How often a body may begin anew after it was cut short."""
_NAME = "tikmix_hf"
_COMMIT = re.compile("[0-9a-f]{40}")
_log = logging.getLogger(__name__)


def save(
    schedule: MixtureSchedule,
    folder: str | os.PathLike[str],
    *,
    license: str | None = None,
    repo_id: str | None = None,
) -> Path:
    """Writes a schedule and its card; see `MixtureSchedule.save_pretrained`."""
    hub_names.check_license(license)
    if repo_id is not None:
        hub_names.check_repo("repo_id", repo_id)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    schedule.save(folder / FILE)
    has_plot = readme.draw(schedule, folder / PLOT)
    text = readme.text(
        schedule,
        name=repo_id or folder.name or "folder",
        license=license,
        plot=PLOT if has_plot else None,
    )
    write_text(folder / CARD, text)
    return folder


def push(schedule: MixtureSchedule, repo_id: str, how: Push) -> str:
    """Publishes a schedule; see `MixtureSchedule.push_to_hub`."""
    hub_names.check_repo("repo_id", repo_id)
    hub_names.check_license(how.license)
    api = HfApi(token=how.token, library_name=_NAME, library_version=__version__)
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


def load(repo_or_folder: str | os.PathLike[str], how: Pull) -> MixtureSchedule:
    """Reads a schedule from a folder or the Hub; see `MixtureSchedule.from_pretrained`."""
    from tikmix_hf.schedule.schedule import MixtureSchedule

    word = os.fspath(repo_or_folder)
    path = Path(word)
    if word and path.exists():
        if how.revision is not None:
            mend = f"{word} is a folder or file of this machine."
            raise fault("revision", "None, for it is of the Hub alone", how.revision, mend)
        return MixtureSchedule.load(_in_folder(path) if path.is_dir() else path)
    if isinstance(repo_or_folder, os.PathLike) or not hub_names.is_repo(word):
        mend = "There is nothing of that name here; check the spelling."
        raise fault("repo_or_folder", 'a folder, or "user/name" of the Hub', word, mend)
    content = reading.read_bytes(_fetched(word, how), max_bytes=how.max_bytes)
    return MixtureSchedule.from_json(content, origin=f"{word} ({FILE})")


def _in_folder(folder: Path) -> Path:
    """The one schedule of a folder.

    Raises:
        FileNotFoundError: it has none.
        ScheduleError: it has two that differ.
    """
    found = [path for name in (FILE, RUN_FILE) if (path := folder / name).is_file()]
    if not found:
        raise FileNotFoundError(
            f"The folder {folder} has no {FILE} and no {RUN_FILE}. Name the folder of a run, or "
            "one that `save_pretrained` wrote."
        )
    if len(found) > 1 and len({reading.read_bytes(path) for path in found}) > 1:
        raise ScheduleError(
            f"The folder {folder} has a {FILE} and a {RUN_FILE} that differ. Name one of the files."
        )
    return found[0]


def _fetched(repo: str, how: Pull) -> str:
    """Path of the schedule's file in the cache, once that has it."""
    cache = None if how.cache_dir is None else os.fspath(how.cache_dir)
    cached = try_to_load_from_cache(
        repo, FILE, repo_type=REPO_TYPE, revision=how.revision, cache_dir=cache
    )
    cached = cached if isinstance(cached, str) else None
    is_fixed = how.revision is not None and _COMMIT.fullmatch(how.revision) is not None
    if cached is not None and is_fixed:
        return cached
    if how.local_files_only or constants.is_offline_mode():
        if cached is None:
            raise hub_refusals.offline(repo, how.revision)
        return cached
    with hub_refusals.told(repo, how.revision, FILE):
        try:
            _check_answer(repo, how, is_patient=cached is None)
        except hub_refusals.TransportError as err:
            if cached is None or not hub_refusals.is_passing(err):
                raise
            _log.warning(
                "The Hub does not answer for %s (%s); its copy in the cache is used.",
                repo,
                type(err).__name__,
            )
            return cached
        return hf_hub_download(
            repo,
            FILE,
            repo_type=REPO_TYPE,
            revision=how.revision,
            cache_dir=cache,
            token=how.token,
            tqdm_class=_bounded(repo, how.max_bytes),
            library_name=_NAME,
            library_version=__version__,
        )


def _check_answer(repo: str, how: Pull, *, is_patient: bool) -> None:
    """Refuses a file by its headers alone; `is_patient` asks again where the Hub is in trouble.

    Raises:
        ScheduleError: it is too large, or has no names that the cache could use.
    """
    about = get_hf_file_metadata(
        hf_hub_url(repo, FILE, repo_type=REPO_TYPE, revision=how.revision),
        token=how.token,
        timeout=constants.HF_HUB_ETAG_TIMEOUT,
        retry_on_errors=is_patient,
        library_name=_NAME,
        library_version=__version__,
    )
    hub_names.check_digests(repo, about.commit_hash, about.etag)
    if about.size is not None and about.size > how.max_bytes:
        raise _too_large(repo, f"{about.size:,}", how.max_bytes)


def _bounded(repo: str, max_bytes: int) -> type[tqdm]:
    """A bar of progress that draws nothing, and ends what is longer than its headers said.

    The client tells its bar of each piece before it writes it, which is the one place where it lets
    a caller count.
    """

    class Bounded(tqdm):
        def __init__(self, *args, **settings):
            super().__init__(*args, **{**settings, "disable": True})
            self.num_bytes = self.num_restarts = 0

        def update(self, n: float | None = 1) -> None:
            step = int(n or 0)
            self.num_bytes += step
            self.num_restarts += step < 0
            if self.num_bytes > max_bytes:
                raise _too_large(repo, f"more than {max_bytes:,}", max_bytes)
            if self.num_restarts > MAX_RESTARTS:
                raise ConnectionError(
                    f"The Hub cut {FILE} of {repo} short {self.num_restarts} times. Try again "
                    "later."
                )

    return Bounded


def _too_large(repo: str, size: str, max_bytes: int) -> ScheduleError:
    return ScheduleError(
        f"{FILE} of {repo} must have at most {max_bytes:,} bytes; got {size}. It is no schedule; "
        "check the name."
    )


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
