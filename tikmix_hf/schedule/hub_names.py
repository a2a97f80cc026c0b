"""What may be said to the Hub: repositories, revisions, licences, tokens, and what it answers.

In: words of people and headers of servers. Out: nothing, or one sentence that names the argument,
its value and the mend. Repositories, revisions and the server's digests become names of files in
the cache, so whatever could lead out of it is refused here.
"""

from __future__ import annotations

import re

from tikmix_hf.schedule.faults import ScheduleError, fault

_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][\w./+-]{0,254}", re.ASCII)
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")
_DIGEST = re.compile(r"[A-Za-z0-9-]{1,128}")


def is_repo(name: str) -> bool:
    """Whether it is the "user/name" of a repository, as huggingface_hub takes them."""
    is_plain = _REPO.fullmatch(name) is not None and "--" not in name and ".." not in name
    return (
        is_plain and not any(part[-1] in ".-" for part in name.split("/")) and name[-4:] != ".git"
    )


def check_repo(argument: str, name: object) -> None:
    """Refuses what is no name of a repository.

    Raises:
        ScheduleError: names the rule.
    """
    if not isinstance(name, str) or not is_repo(name):
        mend = "Write it as in https://huggingface.co/datasets/user/name, without the address."
        raise fault(argument, '"user/name" of the Hub', name, mend)


def check_revision(revision: object) -> None:
    """Refuses what is no branch, tag or commit; None is one.

    Raises:
        ScheduleError: names the rule.
    """
    if revision is None:
        return
    is_plain = isinstance(revision, str) and _REVISION.fullmatch(revision) is not None
    if not is_plain or any(
        part.startswith(".") or part.endswith((".", ".lock")) or ".." in part or not part
        for part in str(revision).split("/")
    ):
        mend = 'Leave it out for "main".'
        raise fault("revision", "a branch, a tag or a commit", revision, mend)


def is_license(name: object) -> bool:
    """Whether it can be an identifier of the Hub's list."""
    return isinstance(name, str) and _LICENSE.fullmatch(name) is not None


def check_license(name: object) -> None:
    """Refuses what is no licence of the Hub; None is one.

    Raises:
        ScheduleError: names the rule.
    """
    if name is not None and not is_license(name):
        mend = "https://huggingface.co/docs/hub/repositories-licenses lists them."
        raise fault("license", 'an identifier such as "apache-2.0" or "cc-by-4.0"', name, mend)


def check_token(token: object) -> None:
    """Refuses what no header can carry, and does not say what it was.

    Raises:
        ScheduleError: names the rule.
    """
    if token is None or isinstance(token, bool):
        return
    if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
        raise ScheduleError(
            "`token` must be text without spaces or line breaks, such as 'hf_...', or None for "
            "HF_TOKEN and `hf auth login`; what was given is none. Copy it again."
        )


def check_digests(repo: str, commit: str | None, etag: str | None) -> None:
    """Refuses a server's names of a commit and a file that are none.

    Raises:
        ScheduleError: names the header.
    """
    for header, value in (("X-Repo-Commit", commit), ("ETag", etag)):
        if value is None or not _DIGEST.fullmatch(value):
            mend = f"What answers for {repo} is no Hub; see HF_ENDPOINT and your proxy."
            raise fault(header, "a digest", value, mend)
