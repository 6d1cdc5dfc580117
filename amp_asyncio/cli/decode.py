"""decode: recorded bytes as boxes that a person reads."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from ..wire.boxes import ANSWER, ASK, COMMAND, ERROR, ERROR_CODE, ERROR_DESCRIPTION
from .boxes import FoundBox, NotAmp, boxes_of
from .failures import Status
from .output import say, say_json
from .sources import read_bytes, recorded
from .text import MOST, cut_text, escaped

__all__ = ["decode"]


def decode(options: Namespace) -> Status:
    """Print the boxes; fail if the bytes are not boxes throughout."""
    data = recorded(read_bytes(options.file), options.format)
    most = None if options.full else MOST
    status = Status.DONE
    try:
        for box in boxes_of(data, options.amp_version):
            if box.faults:
                status = Status.REFUSED
            if options.json:
                say_json(_as_json(box))
            else:
                _say_box(box, most)
    except NotAmp as stop:
        if options.json:
            begun = {"begun": _values_as_json(stop.begun.pairs)} if stop.begun.pairs else {}
            say_json({"offset": stop.offset, "kind": "not AMP", "why": stop.why, **begun})
        else:
            if stop.begun.pairs:
                say(f"{stop.begun.start}: a box that does not end")
                _say_values(stop.begun.pairs, most)
            say(f"{stop.offset}: not AMP: {stop.why}")
        status = Status.REFUSED
    return status


def _say_box(box: FoundBox, most: int | None) -> None:
    told = {key: None if value is None else cut_text(value, most) for key, value in box.told.items()}
    if box.kind == "question":
        wants = "no answer wanted" if told[ASK] is None else f"tag {told[ASK]}"
        what = f"question {told[COMMAND]}, {wants}"
    elif box.kind == "answer":
        what = f"answer to {told[ANSWER]}"
    elif box.kind == "error":
        texts = [text for key in (ERROR_CODE, ERROR_DESCRIPTION) if (text := told[key]) is not None]
        what = f"error for {told[ERROR]}" + (f": {' '.join(texts)}" if texts else "")
    else:
        what = "box"
    say(f"{box.start}: {what}")
    _say_values(box.values, most)
    for fault in box.faults:
        say(f"    !! {fault}")


def _say_values(pairs: list[tuple[bytes, bytes]], most: int | None) -> None:
    names = [escaped(name) for name, _ in pairs]
    width = max(map(len, names), default=0)
    for name, (_, value) in zip(names, pairs, strict=True):
        say(f"    {name:<{width}}  {cut_text(value, most)}")


_JSON_NAMES = {
    COMMAND: "command",
    ASK: "tag",
    ANSWER: "tag",
    ERROR: "tag",
    ERROR_CODE: "code",
    ERROR_DESCRIPTION: "description",
}


def _as_json(box: FoundBox) -> dict[str, Any]:
    found: dict[str, Any] = {"offset": box.start, "kind": box.kind}
    for key, value in box.told.items():
        found[_JSON_NAMES[key]] = None if value is None else escaped(value)
    found["values"] = _values_as_json(box.values)
    if box.faults:
        found["faults"] = box.faults
    return found


def _values_as_json(pairs: list[tuple[bytes, bytes]]) -> dict[str, str]:
    return {escaped(key): escaped(value) for key, value in pairs}
