"""What the Hub refuses, in one sentence with the mend.

In: an exception of huggingface_hub, of its transport or of an upload. Out: Python's own exception
for such a case, so that nobody needs to know the client's: PermissionError, FileNotFoundError,
ConnectionError; what was raised stays its `__cause__`. No answer of a server is shown uncut.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

# Of the library that carries requests, which differs between releases of huggingface_hub.
from huggingface_hub.errors import (
    HTTPError as TransportError,  # pyright: ignore[reportPrivateImportUsage]
)

from tikmix_hf.schedule.faults import ScheduleError, shown

_BUSY = (408, 429)
_TOKEN = "set HF_TOKEN, run `hf auth login`, or pass `token`"


@contextmanager
def told(repo: str, revision: str | None, file: str) -> Iterator[None]:
    """Says in one sentence what went wrong with a repository.

    Raises:
        OSError: PermissionError, FileNotFoundError or ConnectionError.
        ScheduleError: the Hub does not take the card.
    """
    try:
        yield
    except ScheduleError:
        raise
    except (TransportError, OSError, RuntimeError, KeyError, ValueError) as err:
        known = _refusal(_root(err), repo, revision, file)
        if known is None:
            raise
        raise known from err


def is_passing(err: BaseException) -> bool:
    """Whether the same question may be answered later: no answer, or a server in trouble."""
    if isinstance(err, HfHubHTTPError):
        return err.response.status_code >= 500 or err.response.status_code in _BUSY
    return isinstance(err, TransportError)


def asked_to_wait(err: BaseException) -> int | None:
    """Seconds that a server which is too busy asks for."""
    said = err.response.headers.get("Retry-After", "") if isinstance(err, HfHubHTTPError) else ""
    return int(said) if said.isascii() and said.isdigit() else None


def offline(repo: str, revision: str | None) -> FileNotFoundError:
    """The refusal where the Hub may not be asked and the cache has nothing."""
    return FileNotFoundError(
        f"The Hub may not be asked for {_named(repo, revision)} (HF_HUB_OFFLINE or "
        "local_files_only), and the cache has no schedule of it. Fetch it once online, or name a "
        "folder."
    )


def _root(err: BaseException) -> BaseException:
    """What lies under the client's own wrapping of an error."""
    wraps = isinstance(err, LocalEntryNotFoundError) or type(err) is RuntimeError
    return _root(err.__cause__) if wraps and err.__cause__ is not None else err


def _refusal(err: BaseException, repo: str, revision: str | None, file: str) -> Exception | None:
    named = _named(repo, revision)
    if isinstance(err, HfHubHTTPError):
        return _by_status(err, repo, revision, file)
    if isinstance(err, (OfflineModeIsEnabled, LocalEntryNotFoundError)):
        return offline(repo, revision)
    # The client says of a body that is too short, and of nothing else, a bare OSError.
    if isinstance(err, TransportError) or (type(err) is OSError and err.errno is None):
        what = "cut its answer short" if type(err) is OSError else type(err).__name__
        return ConnectionError(
            f"The Hub gave no complete answer for {named} ({what}). Check the connection, and try "
            "again."
        )
    if isinstance(err, ValueError) and "README.md" in str(err):
        return ScheduleError(
            f"The Hub does not take the card of {named}: {shown(_reason(err))}. Choose another "
            "`license`."
        )
    if isinstance(err, (KeyError, ValueError, RuntimeError)):
        return ConnectionError(
            f"The Hub's answer for {named} cannot be read ({type(err).__name__}). Check "
            "HF_ENDPOINT and your proxy, and try again."
        )
    return None


def _by_status(err: HfHubHTTPError, repo: str, revision: str | None, file: str) -> Exception:
    status, named = err.response.status_code, _named(repo, revision)
    if isinstance(err, GatedRepoError):
        return PermissionError(
            f"{repo} asks for its owner's leave (HTTP {status}). Ask for it on its page, then "
            f"{_TOKEN}."
        )
    if isinstance(err, RepositoryNotFoundError):
        return FileNotFoundError(
            f"The Hub has no dataset repository {repo}, or it is private and the token may not see "
            f"it (HTTP {status}). Check the spelling, or {_TOKEN}."
        )
    if isinstance(err, RevisionNotFoundError):
        return FileNotFoundError(
            f"{repo} has no revision {revision or 'main'}. Name a branch, a tag or a commit of it."
        )
    if isinstance(err, EntryNotFoundError):
        return FileNotFoundError(
            f"{named} has no {file}. Name a repository that `push_to_hub` made."
        )
    if status == 401:
        return PermissionError(
            f"The Hub does not accept the token for {repo} (HTTP 401). Make a new one at "
            f"https://huggingface.co/settings/tokens, then {_TOKEN}."
        )
    if status == 403:
        return PermissionError(
            f"The token may not do that with {repo} (HTTP 403). Take one that may write there, or "
            "another repository; with create_pr=True you ask its owner."
        )
    if status in (409, 412):
        return ConnectionError(
            f"Something else was written to {named} at the same time (HTTP {status}). Push again."
        )
    if is_passing(err):
        wait = asked_to_wait(err)
        when = "later" if wait is None else f"in {wait:,} s"
        return ConnectionError(
            f"The Hub is out of order or too busy for {named} (HTTP {status}). Try again {when}."
        )
    return ConnectionError(
        f"The Hub refuses {named} (HTTP {status}): {shown(err.server_message or 'no reason')}. "
        "Check the name and the arguments."
    )


def _reason(err: Exception) -> str:
    """What the Hub says of a card, without the client's heading."""
    return str(err).partition("\n")[2].removeprefix("- ")


def _named(repo: str, revision: str | None) -> str:
    return repo if revision is None else f"{repo}, revision {revision},"
