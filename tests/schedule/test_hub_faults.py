"""What a Hub may do wrong, and what it refuses: one sentence each."""

from __future__ import annotations

import itertools
import re
import threading
from pathlib import Path

import pytest
from hub_faults import Fault
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError
from huggingface_hub.utils import close_session, get_session

from tikmix_hf import MixtureSchedule
from tikmix_hf.schedule import MAX_BYTES, ScheduleError

# Of the client itself, where it uploads a large file such as a picture.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

SCHEDULE = MixtureSchedule.constant({"web": 0.75, "code": 0.25})
CONTENT = {"mixture_schedule.json": SCHEDULE.to_json().encode()}
PIECE = b" " * 2**20


@pytest.fixture
def fault(hub):
    hub.server.add("user/mix", CONTENT)

    def add(where: str, status: int = 0, **how) -> Fault:
        hub.server.faults.append(Fault(where, status, **how))
        return hub.server.faults[-1]

    return add


def load(**options) -> MixtureSchedule:
    return MixtureSchedule.from_pretrained("user/mix", **options)


def is_one_sentence_with_its_mend(err: BaseException) -> bool:
    words = str(err)
    return "\n" not in words and len(words) < 400 and words.endswith(".") and ". " in words


# What the Hub says no to


def test_a_token_that_is_none_of_its_users_is_refused(hub, fault):
    for ask in (load, lambda **how: SCHEDULE.push_to_hub("user/mix", **how)):
        with pytest.raises(PermissionError, match=r"does not accept the token .*hf auth") as caught:
            ask(token="hf_nobody")
        assert isinstance(caught.value.__cause__, HfHubHTTPError)
        assert "hf_nobody" not in str(caught.value)
        assert is_one_sentence_with_its_mend(caught.value)


def test_without_a_token_nothing_is_pushed(hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(PermissionError, match="set HF_TOKEN, run `hf auth login`, or pass"):
        SCHEDULE.push_to_hub("user/new")
    assert hub.server.repos == {}


def test_anothers_repository_is_not_written_to(hub, fault):
    with pytest.raises(PermissionError, match=r"may not do that with user/mix .* create_pr=True"):
        SCHEDULE.push_to_hub("user/mix", token="hf_guest")
    with pytest.raises(PermissionError, match="may not do that with user/new"):
        SCHEDULE.push_to_hub("user/new", token="hf_guest")


def test_what_is_not_there_is_named(hub, fault):
    hub.server.add("user/empty", {"x.txt": b""})
    with pytest.raises(FileNotFoundError, match="no dataset repository user/mxi, or it is private"):
        MixtureSchedule.from_pretrained("user/mxi")
    with pytest.raises(FileNotFoundError, match="user/mix has no revision v2") as caught:
        load(revision="v2")
    assert isinstance(caught.value.__cause__, RevisionNotFoundError)
    with pytest.raises(FileNotFoundError, match=r"user/empty has no mixture_schedule\.json"):
        MixtureSchedule.from_pretrained("user/empty")
    assert hub.waits == []


def test_a_repository_that_asks_for_leave_says_so(fault):
    fault("HEAD ", 403, headers={"X-Error-Code": "GatedRepo"})
    with pytest.raises(PermissionError, match="user/mix asks for its owner's leave"):
        load()


@pytest.mark.parametrize("status", [409, 412])
def test_two_pushes_at_once_end_in_one(fault, status):
    fault("/commit/", status, body=b'{"error": "A commit has happened since."}')
    with pytest.raises(ConnectionError, match=rf"at the same time \(HTTP {status}\). Push again"):
        SCHEDULE.push_to_hub("user/mix")


def test_a_licence_that_the_hub_does_not_know_is_named_and_nothing_pushed(hub, fault):
    with pytest.raises(
        ScheduleError, match=r"license. must be one of the list.* another `license`"
    ):
        SCHEDULE.push_to_hub("user/mix", license="nonsense")
    assert hub.server.files("user/mix") == CONTENT


def test_a_reason_that_nobody_foresaw_is_told_shortened(fault):
    fault("HEAD ", 418, headers={"X-Error-Message": "x" * 5000})
    with pytest.raises(ConnectionError, match=r"HTTP 418\): 'xxx.*\.\.\..*xxx'\. Check") as caught:
        load()
    assert is_one_sentence_with_its_mend(caught.value)


# A Hub in trouble


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_in_trouble_is_asked_again_and_then_left_in_peace(hub, fault, status):
    once = fault("HEAD ", status, times=2)
    assert load() == SCHEDULE
    assert once.times == 0
    fault("HEAD ", status)
    hub.server.add("user/other", CONTENT)
    with pytest.raises(ConnectionError, match=rf"HTTP {status}\)\. Try again later"):
        MixtureSchedule.from_pretrained("user/other")
    assert len(hub.waits) < 15
    assert sum(hub.waits) < 60


def test_a_hub_that_wants_to_be_left_alone_for_long_is_not_waited_for(hub, fault):
    fault("HEAD ", 429, headers={"Retry-After": "30"}, times=1)
    assert load() == SCHEDULE
    assert hub.waits == [30]
    fault("HEAD ", 429, headers={"Retry-After": "100000"})
    hub.server.add("user/other", CONTENT)
    with pytest.raises(ConnectionError, match=r"HTTP 429\)\. Try again in 100,000 s\."):
        MixtureSchedule.from_pretrained("user/other")
    assert hub.waits == [30]


def test_a_damaged_copy_in_the_cache_is_named_and_fetched_anew_once_it_is_gone(hub, fault):
    assert load() == SCHEDULE
    (blob,) = hub.cache.glob("datasets--*/blobs/*")
    blob.write_bytes(blob.read_bytes()[:50])
    with pytest.raises(ScheduleError, match=r"It lies in the cache as /\S+; without") as caught:
        load()
    (told,) = re.findall(r"cache as (/\S+);", str(caught.value))
    Path(told).resolve().unlink()
    assert load() == SCHEDULE


@pytest.mark.parametrize(
    "where", ["/repos/create", "/validate-yaml", "/preupload/", "/commit/", "/branch/"]
)
def test_a_push_to_a_hub_in_trouble_ends_in_a_sentence_and_not_in_half_a_commit(hub, fault, where):
    fault(where, 500, body=b"<html>sorry</html>")
    with pytest.raises(ConnectionError, match=r"ry again") as caught:
        SCHEDULE.push_to_hub("user/mix", revision="new")
    assert is_one_sentence_with_its_mend(caught.value)
    assert hub.server.files("user/mix") == CONTENT
    assert sum(hub.waits) < 60


def test_an_upload_that_breaks_says_what_broke(hub, fault):
    # The picture, which a schedule of known length has, goes apart.
    drawn = MixtureSchedule.from_dict({**SCHEDULE.to_dict(), "run": {"num_samples": 10}})
    fault("PUT /lfs/", 500)
    with pytest.raises(ConnectionError, match=r"HTTP 500\)\. Try again later"):
        drawn.push_to_hub("user/mix")
    assert hub.server.files("user/mix") == CONTENT


def test_a_silent_hub_is_not_waited_for(hub, fault, monkeypatch):
    monkeypatch.setattr("tikmix_hf.schedule.hub_push.REPLY_SECONDS", 0.2)
    release = threading.Event()
    fault("HEAD ", hang=release)
    fault("/repos/create", hang=release)
    with pytest.raises(ConnectionError, match=r"no complete answer for user/mix .*Timeout"):
        load()
    with pytest.raises(ConnectionError, match=r"no complete answer for user/mix .*Timeout"):
        SCHEDULE.push_to_hub("user/mix")
    assert get_session().timeout.read is None  # for whoever else uses the client


def test_where_nobody_listens_the_connection_is_named(hub):
    hub.server.add("user/mix", CONTENT)
    load()
    hub.server.close()
    close_session()  # which holds a connection
    with pytest.raises(ConnectionError, match="Check the connection, and try again"):
        MixtureSchedule.from_pretrained("user/other")
    with pytest.raises(ConnectionError, match="Check the connection, and try again"):
        SCHEDULE.push_to_hub("user/mix")
    assert load() == SCHEDULE  # of the cache


def test_the_copy_in_the_cache_stands_in_for_a_hub_in_trouble_and_the_log_says_so(
    hub, fault, caplog
):
    load()
    fault("HEAD ", 503)
    assert load() == SCHEDULE
    assert "does not answer for user/mix (HfHubHTTPError); its copy in the cache" in caplog.text
    assert hub.waits == []
    # But not for one that says no.
    hub.server.faults.clear()
    with pytest.raises(PermissionError):
        load(token="hf_nobody")


# Bodies and headers that lie


def cut(headers, body):
    return headers, iter([body[: len(body) // 2]])


def test_a_body_that_is_cut_short_goes_on_where_it_ended(hub, fault):
    fault("GET ", alter=cut, times=2)
    assert load() == SCHEDULE


@pytest.mark.parametrize(
    ("num_bytes", "message"),
    # The client counts in tens of MiB: what it has of a longer body it need not ask for again.
    [(100, "no complete answer for user/mix"), (11 * 2**20, "of user/mix short 4 times")],
)
def test_a_body_that_is_always_cut_short_is_given_up(hub, fault, num_bytes, message):
    def cut_anew(headers, body):
        # Each time from its beginning, as a server does that knows no ranges.
        headers = {"X-Repo-Commit": "a" * 40, "ETag": '"b"', "Content-Length": str(2 * num_bytes)}
        return headers, iter([b" " * num_bytes])

    fault(" /datasets/", 200, alter=cut_anew)
    with pytest.raises(ConnectionError, match=message):
        load()
    assert len(hub.server.asked) < 10
    assert not [path for path in hub.cache.rglob("*.json") if path.is_file()]


@pytest.mark.parametrize("is_large_file", [False, True])
def test_a_gigabyte_is_refused_by_its_headers(hub, fault, is_large_file):
    name = "X-Linked-Size" if is_large_file else "Content-Length"
    fault("HEAD ", alter=lambda headers, body: ({**headers, name: str(2**30)}, iter([])))
    with pytest.raises(ScheduleError, match="at most 33,554,432 bytes; got 1,073,741,824"):
        load()
    assert not any(line.startswith("GET ") for line in hub.server.asked)


@pytest.mark.parametrize("is_said", [False, True])
def test_a_gigabyte_that_its_headers_hide_is_cut_off(hub, fault, is_said):
    def endless(headers, body):
        headers = {name: value for name, value in headers.items() if name != "Content-Length"}
        if is_said:
            headers["Content-Length"] = str(2**30)
        return headers, itertools.repeat(PIECE, 1024)

    fault("GET ", alter=endless)
    if not is_said:
        fault("HEAD ", alter=lambda h, b: ({k: h[k] for k in h if k != "Content-Length"}, iter([])))
    with pytest.raises(ScheduleError, match="got more than 33,554,432"):
        load()
    assert hub.server.sent < MAX_BYTES + 48 * 2**20
    assert sum(path.stat().st_size for path in hub.cache.rglob("*") if path.is_file()) < 2**20


@pytest.mark.parametrize(
    ("header", "value"), [("ETag", '"../../../x"'), ("X-Repo-Commit", "../../x"), ("ETag", '"a/b"')]
)
def test_what_a_server_calls_its_file_does_not_lead_out_of_the_cache(hub, fault, header, value):
    fault(" /datasets/", alter=lambda headers, body: ({**headers, header: value}, body))
    before = set(hub.cache.parent.rglob("*"))
    with pytest.raises(ScheduleError, match=f"`{header}.* must be a digest; got '.*/"):
        load()
    assert set(hub.cache.parent.rglob("*")) == before


def test_what_is_no_schedule_is_named_by_its_repository(hub):
    hub.server.add("user/mix", {"mixture_schedule.json": b"<html>"})
    with pytest.raises(ScheduleError, match=r"^user/mix \(mixture_schedule\.json\) is not JSON"):
        load()
