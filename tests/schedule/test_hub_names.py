"""What people may say to the Hub by mistake: it is not asked, and the mend is named."""

from __future__ import annotations

import pytest

from tikmix_hf import MixtureSchedule
from tikmix_hf.schedule import ScheduleError, hub_names

SCHEDULE = MixtureSchedule.constant({"web": 0.75, "code": 0.25})
NO_NAMES = [
    "../../etc/x",
    "user/../x",
    "/etc/nothing",
    "user\\mix",
    "user",
    "a/b/c",
    "user/mix.git",
    "user/-mix",
    ".user/mix",
    "https://huggingface.co/user/mix",
]


@pytest.mark.parametrize("name", [*NO_NAMES, "user/mi x", "user/mix\n", "u/a--b", "u/a..b", ""])
def test_what_is_no_name_of_the_hub_is_not_asked_for(hub, name):
    with pytest.raises(ScheduleError, match='must be a folder, or "user/name" of the Hub; got'):
        MixtureSchedule.from_pretrained(name)
    with pytest.raises(ScheduleError, match='`repo_id` must be "user/name" of the Hub; got'):
        SCHEDULE.push_to_hub(name)
    assert hub.server.asked == []


@pytest.mark.parametrize("name", ["u/m", "user/Mix_1.5-b", "a.b/c"])
def test_what_is_one_is(name):
    assert hub_names.is_repo(name)


@pytest.mark.parametrize(
    "revision", ["../x", "a/../b", "a//b", "/a", "a\\b", "a/.b", "x.lock", "-x", ""]
)
def test_a_revision_does_not_lead_out_of_the_cache(hub, revision):
    with pytest.raises(ScheduleError, match="`revision` must be a branch, a tag or a commit"):
        MixtureSchedule.from_pretrained("user/mix", revision=revision)
    with pytest.raises(ScheduleError, match="`revision` must be a branch, a tag or a commit"):
        SCHEDULE.push_to_hub("user/mix", revision=revision)
    assert hub.server.asked == []


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"token": "hf_a\nb"}, "`token` must be text without spaces"),
        ({"license": "Apache 2\n---"}, "`license` must be an identifier such as"),
        ({"commit_message": " "}, "`commit_message` must be text"),
        ({"create_pr": True, "revision": "x"}, "`revision` must be None with create_pr=True"),
    ],
)
def test_what_a_push_cannot_say_is_refused_before_it_says_anything(hub, how, message):
    with pytest.raises(ScheduleError, match=message) as caught:
        SCHEDULE.push_to_hub("user/mix", **how)
    assert "hf_a" not in str(caught.value)
    assert hub.server.asked == []
