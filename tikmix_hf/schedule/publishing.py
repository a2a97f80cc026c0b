"""What a schedule can do with folders and the Hub: the methods that `MixtureSchedule` inherits.

In: names, and the words of huggingface_hub. Out: a folder, a repository, a schedule. The client of
the Hub is imported where it is used, so that reading a file needs none.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from tikmix_hf.schedule.schedule import MixtureSchedule


class Published:
    """Saving with a card, publishing and fetching; `hub.py` and `hub_push.py` say how."""

    __slots__ = ()

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        license: str | None = None,
        repo_id: str | None = None,
    ) -> Path:
        """Writes `mixture_schedule.json` and its card into a folder; other files stay.

        The card, README.md, says what the schedule is and how to replay it. Where matplotlib is
        installed and the run's length is known, `mixture.png` is drawn for it.

        Args:
            folder: is made where it is not there.
            license: of the schedule, as the Hub names it: "apache-2.0", "cc-by-4.0", ...
            repo_id: "user/name" that the card tells people to load; None takes the folder's name.

        Returns:
            The folder.

        Raises:
            ScheduleError: a licence or a name that the Hub does not take.
        """
        from tikmix_hf.schedule import hub

        return hub.save(cast("MixtureSchedule", self), folder, license=license, repo_id=repo_id)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload the mixture schedule",
        license: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Publishes what `save_pretrained` writes as a dataset repository, in one commit.

        Args:
            repo_id: "user/name"; it is made where it is not there.
            private: who may read it; None leaves it to the owner's default, or as it is.
            token: None takes HF_TOKEN or that of `hf auth login`.
            revision: branch; it is made where it is not there. None is "main".
            commit_message: of the commit.
            license: as in `save_pretrained`; None is that of an earlier push, if there was one. The
                rest of the card is written anew.
            create_pr: asks the owner to take it instead of committing.

        Returns:
            The address of the repository, of its branch, or of the pull request.

        Raises:
            ScheduleError: a `ValueError`: a name or licence that the Hub does not take, or a
                repository that is public where `private=True`, or the other way round, or whose
                card is of something else.
            PermissionError: the token is missing, wrong or may not write there.
            FileNotFoundError: no such repository or branch, or the Hub may not be asked (offline).
            ConnectionError: the Hub does not answer, or another push came between.
        """
        from tikmix_hf.schedule import hub_push, hub_settings

        how = hub_settings.Push(
            private=private,
            token=token,
            revision=revision,
            commit_message=commit_message,
            license=license,
            create_pr=create_pr,
        )
        return hub_push.push(cast("MixtureSchedule", self), repo_id, how)

    @classmethod
    def from_pretrained(
        cls,
        repo_or_folder: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
    ) -> MixtureSchedule:
        """Reads the schedule of a folder, or of a dataset repository of the Hub.

        Nothing but the schedule's file is fetched, and that only if it is small enough. It stays in
        the Hub's cache, which answers where the Hub does not: offline without a word, otherwise
        with a warning in the log.

        Args:
            repo_or_folder: a folder of `save_pretrained` or of a run, a schedule's file, or
                "user/name". What is there on this machine goes first.
            revision: of the Hub: a branch, a tag or a commit; None is "main".
            token: None takes HF_TOKEN or that of `hf auth login`.
            cache_dir: None takes the cache of huggingface_hub.
            local_files_only: asks the cache alone, as HF_HUB_OFFLINE=1 does.

        Raises:
            ScheduleError: a `ValueError`: no name of the Hub, too large a file, or no schedule.
            PermissionError: the token is wrong, or may not read that.
            FileNotFoundError: no such repository, revision or file, or none in the cache.
            ConnectionError: the Hub does not answer, or cuts its answer short.
        """
        from tikmix_hf.schedule import hub, hub_settings

        how = hub_settings.Pull(
            revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only
        )
        return hub.load(repo_or_folder, how)
