"""A small reading of JSON Schema: as much as the format's uses, and an error for all else."""

from __future__ import annotations

import re
from typing import Any

KINDS = {
    "object": dict,
    "array": list,
    "string": str,
    "null": type(None),
    "integer": int,
    "number": (int, float),
}
SAID = {"$schema", "title", "description", "$defs"}


def faults(value: Any, schema: dict[str, Any], root: dict[str, Any], place: str = "") -> list[str]:
    """Places and keywords that a value breaks."""
    found = []
    for keyword, rule in schema.items():
        if keyword in SAID:
            continue
        if keyword == "$ref":
            found += faults(value, root["$defs"][rule.removeprefix("#/$defs/")], root, place)
        elif keyword in ("properties", "additionalProperties", "items"):
            found += _inside(value, schema, keyword, root, place)
        elif not _holds(value, keyword, rule):
            found.append(f"{place} {keyword}")
    return found


def _inside(value: Any, schema: dict[str, Any], keyword: str, root: Any, place: str) -> list[str]:
    rule = schema[keyword]
    if keyword == "items":
        entries = enumerate(value) if isinstance(value, list) else ()
        return [f for n, entry in entries for f in faults(entry, rule, root, f"{place}/{n}")]
    if not isinstance(value, dict):
        return []
    known = schema.get("properties", {})
    if keyword == "properties":
        entries = [(k, v, rule[k]) for k, v in value.items() if k in rule]
    elif rule is False:
        return [f"{place}/{key} additionalProperties" for key in value if key not in known]
    else:
        entries = [(k, v, rule) for k, v in value.items() if k not in known]
    return [f for k, v, own in entries for f in faults(v, own, root, f"{place}/{k}")]


def _holds(value: Any, keyword: str, rule: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    checks = {
        "type": lambda: any(
            isinstance(value, KINDS[kind]) and not isinstance(value, bool)
            for kind in ([rule] if isinstance(rule, str) else rule)
        ),
        "const": lambda: value == rule and type(value) is type(rule),
        "required": lambda: not isinstance(value, dict) or set(rule) <= set(value),
        "minimum": lambda: not is_number or value >= rule,
        "maximum": lambda: not is_number or value <= rule,
        "pattern": lambda: not isinstance(value, str) or re.search(rule, value) is not None,
        "minLength": lambda: not isinstance(value, str) or len(value) >= rule,
        "maxLength": lambda: not isinstance(value, str) or len(value) <= rule,
        "minItems": lambda: not isinstance(value, list) or len(value) >= rule,
        "maxItems": lambda: not isinstance(value, list) or len(value) <= rule,
        "uniqueItems": lambda: not isinstance(value, list) or len(set(value)) == len(value),
    }
    return checks[keyword]()
