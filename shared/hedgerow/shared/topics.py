"""MQTT topic filters: whether one is well formed and whether it matches a topic (MQTT 5.0, section 4.7)."""

from __future__ import annotations

MAX_TOPIC_BYTES = 256


def filter_problem(topic_filter: str) -> str | None:
    """Return what is wrong with a topic filter, or None."""
    if not topic_filter:
        return "is empty"
    if len(topic_filter.encode()) > MAX_TOPIC_BYTES:
        return f"is longer than {MAX_TOPIC_BYTES} bytes"
    if any(ord(character) < 32 for character in topic_filter):
        return "holds a control character"
    levels = topic_filter.split("/")
    for position, level in enumerate(levels):
        if "#" in level and (level != "#" or position != len(levels) - 1):
            return "may hold # only as its whole last level"
        if "+" in level and level != "+":
            return "may hold + only as a whole level"
    return None


def matches(topic_filter: str, topic: str) -> bool:
    """Return whether a well-formed filter matches ``topic``; wildcards never match a leading ``$`` level."""
    if topic.startswith("$") and topic_filter[:1] in ("+", "#"):
        return False
    wanted, given = topic_filter.split("/"), topic.split("/")
    for position, level in enumerate(wanted):
        if level == "#":
            return True
        if position >= len(given) or level not in ("+", given[position]):
            return False
    return len(wanted) == len(given)
