"""Topic filters as MQTT 5.0 section 4.7 has them."""

from __future__ import annotations

import pytest
from paho.mqtt.client import topic_matches_sub

from hedgerow.shared.topics import filter_problem, matches

TOPICS = ["a", "a/b", "a/b/c", "a/", "/a", "b", "$SYS/x", "a//c", "/"]
FILTERS = ["a", "a/b", "a/+", "a/#", "#", "+", "+/b", "a/+/c", "/+", "+/+", "a//c", "$SYS/#", "a/b/c/#"]


@pytest.mark.parametrize("topic_filter", FILTERS)
def test_matching_agrees_with_paho(topic_filter: str) -> None:
    for topic in TOPICS:
        assert matches(topic_filter, topic) == topic_matches_sub(topic_filter, topic), topic


@pytest.mark.parametrize("topic_filter", FILTERS)
def test_sound_filters_have_no_problem(topic_filter: str) -> None:
    assert filter_problem(topic_filter) is None


@pytest.mark.parametrize("topic_filter", ["", "a/#/b", "a#", "a+/b", "a\nb", "x" * 300, "ä" * 200])
def test_broken_filters_have_one(topic_filter: str) -> None:
    assert filter_problem(topic_filter)
