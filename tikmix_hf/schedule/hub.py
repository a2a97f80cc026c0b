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
import time
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.utils import tqdm

from tikmix_hf import __version__
from tikmix_hf.files import write_text
from tikmix_hf.schedule import hub_names, hub_refusals, reading, readme
from tikmix_hf.schedule.faults import ScheduleError, fault
from tikmix_hf.schedule.hub_settings import Pull

if TYPE_CHECKING:
    from tikmix_hf.schedule.schedule import MixtureSchedule

FILE, RUN_FILE = "mixture_schedule.json", "schedule.json"
"""The schedule in a repository, and in the folder of a run."""
CARD, PLOT = "README.md", "mixture.png"
REPO_TYPE = "dataset"
REPLY_SECONDS = 60.0
"""How long the Hub may be silent while a schedule is pushed, or ask to be left alone."""
MAX_RESTARTS = 3
"""How often a body may begin anew after it was cut short."""
NAME = "tikmix_hf"
_WAITS = (1, 2, 4, 8)  # seconds between questions
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
    path = Path(_fetched(word, how))
    content = reading.read_bytes(path, max_bytes=how.max_bytes)
    try:
        return MixtureSchedule.from_json(content, origin=f"{word} ({FILE})")
    except ScheduleError as err:
        raise ScheduleError(
            f"{err} It lies in the cache as {path}; without that it is fetched anew."
        ) from err


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
            library_name=NAME,
            library_version=__version__,
        )


def _check_answer(repo: str, how: Pull, *, is_patient: bool) -> None:
    """Refuses a file by its headers alone; `is_patient` asks again where the Hub is in trouble.

    Raises:
        ScheduleError: it is too large, or has no names that the cache could use.
    """
    for wait in _WAITS if is_patient else ():
        try:
            return _check_headers(repo, how)
        except hub_refusals.TransportError as err:
            # The client itself would wait for as long as it is told to.
            seconds = hub_refusals.asked_to_wait(err) or wait
            if not hub_refusals.is_passing(err) or seconds > REPLY_SECONDS:
                raise
            _log.warning("The Hub does not answer for %s; asked again in %d s.", repo, seconds)
            time.sleep(seconds)
    return _check_headers(repo, how)


def _check_headers(repo: str, how: Pull) -> None:
    about = get_hf_file_metadata(
        hf_hub_url(repo, FILE, repo_type=REPO_TYPE, revision=how.revision),
        token=how.token,
        timeout=constants.HF_HUB_ETAG_TIMEOUT,
        library_name=NAME,
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
