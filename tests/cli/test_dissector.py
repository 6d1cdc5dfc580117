"""dissector: what tshark makes of a capture is what decode says of the same bytes."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from amp_asyncio import AmpBox
from amp_asyncio.cli import main
from amp_asyncio.cli.text import unescaped

needs_tshark = pytest.mark.skipif(
    shutil.which("tshark") is None, reason="tshark is not installed (apt-get install tshark)"
)

CLIENT, SERVER = 50000, 1234

# A mark that is no fault: an error that the peer sent.
NOTE = 0x400000


def pcap(segments: Iterable[tuple[int, bytes]]) -> bytes:
    """Return a capture of one TCP connection: who sends (by the port) and what, one packet each.

    A packet of nothing ends the sender's side.
    """
    packets = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)]
    sent = {CLIENT: 1, SERVER: 1}
    for number, (port, data) in enumerate(segments):
        other = CLIENT + SERVER - port
        flags = 0x18 if data else 0x11
        tcp = struct.pack(">HHIIBBHHH", port, other, sent[port], sent[other], 0x50, flags, 65535, 0, 0)
        ip = struct.pack(
            ">BBHHHBBH4s4s", 0x45, 0, 40 + len(data), number, 0, 64, 6, 0, b"\x7f\0\0\1", b"\x7f\0\0\1"
        )
        packet = ip + tcp + data
        packets.append(struct.pack("<IIII", 1700000000, number * 1000, len(packet), len(packet)))
        packets.append(packet)
        sent[port] += len(data)
    return b"".join(packets)


def box(**pairs: bytes) -> bytes:
    return AmpBox(pairs).serialize()


# Conversations, as what each side sends, in turn.
QUESTIONS = [
    (CLIENT, box(_command=b"Sum", _ask=b"1", a=b"13", b=b"81")),
    (SERVER, box(_answer=b"1", total=b"94")),
    (CLIENT, box(_command=b"Divide", _ask=b"2", a=b"1", b=b"0") + box(_command=b"Hm", _ask=b"3")),
    (SERVER, box(_error=b"2", _error_code=b"ZERO_DIVISION", _error_description=b"by zero")),
    (SERVER, box(_error=b"3", _error_code=b"UNHANDLED", _error_description=b"")),
    (CLIENT, box(_command=b"Notify", data="grün".encode(), nothing=b"")),
    (SERVER, box(_command=b"AskName", _ask=b"1")),
    (CLIENT, box(_answer=b"1", name=b"Ada")),
    (CLIENT, box(_command=b"StartTLS", _ask=b"4")),
    (SERVER, box(_answer=b"4")),
]
FAULTS = [
    (CLIENT, box(data=b"no kind") + b"\0\0"),
    (SERVER, box(_error=b"9")),
    (CLIENT, b"\0\x08_command\0\1A" + b"\0\1a\0\1x" + b"\0\1a\0\1y" + b"\0\0"),
]
LONG = [
    (CLIENT, box(_command=b"Put", _ask=b"1", data=bytes(range(256)) * 255 + b"x" * 255)),
    (SERVER, box(_answer=b"1", data=b"y" * 65535)),
]
VERSION_2 = [
    (CLIENT, AmpBox(_command=b"Put", _ask=b"1", a=b"x" * 70000, b=b"y" * 65535).serialize(2)),
    (SERVER, AmpBox(_answer=b"1", data=b"z" * 131070).serialize(2)),
]

_TOLD = {
    "question": {"command": "asyncamp.command", "tag": "asyncamp.ask"},
    "answer": {"tag": "asyncamp.answer"},
    "error": {
        "tag": "asyncamp.error",
        "code": "asyncamp.error_code",
        "description": "asyncamp.error_description",
    },
    "unknown": {},
}


def in_segments(turns: list[tuple[int, bytes]], size: int) -> list[tuple[int, bytes]]:
    return [
        (port, data[start : start + size])
        for port, data in turns
        for start in range(0, len(data), size)
    ]


def dissected(folder: Path, turns: list[tuple[int, bytes]], *options: str) -> list[dict[str, Any]]:
    """Return the packets of a capture that have boxes, as tshark sees them; its warnings are errors."""
    (folder / "capture.pcap").write_bytes(pcap(turns))
    lua = folder / "amp.lua"
    command = ["tshark", "-X", f"lua_script:{lua}", "-r", str(folder / "capture.pcap")]
    command += ["-T", "json", "--no-duplicate-keys", "-Y", "asyncamp", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    errors = [line for line in done.stderr.splitlines() if "Running as user" not in line]
    assert errors == []
    return [each["_source"]["layers"] for each in json.loads(done.stdout)]


def boxes_in(layers: dict[str, Any]) -> list[dict[str, Any]]:
    found = layers["asyncamp"]
    return found if isinstance(found, list) else [found]


def values_in(shown: dict[str, Any]) -> dict[str, bytes]:
    pairs = shown.get("asyncamp.pair", [])
    return {
        pair["asyncamp.key"]: bytes.fromhex(pair["asyncamp.value"].replace(":", ""))
        for pair in (pairs if isinstance(pairs, list) else [pairs])
    }


def experts(shown: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the marks of a box."""
    found = shown.get("_ws.expert", [])
    return found if isinstance(found, list) else [found]


def decoded(
    data: bytes, folder: Path, capsys: pytest.CaptureFixture[str], *options: str
) -> list[dict[str, Any]]:
    (folder / "recorded").write_bytes(data)
    main(["decode", "--raw", "--json", *options, str(folder / "recorded")])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def write_dissector(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> None:
    assert main(["dissector", *options]) == 0
    (folder / "amp.lua").write_text(capsys.readouterr().out)


@pytest.mark.slow
@needs_tshark
@pytest.mark.parametrize(
    ("turns", "size", "version"),
    [
        (QUESTIONS, 1400, "1"),
        (QUESTIONS, 7, "1"),
        (FAULTS, 1400, "1"),
        (LONG, 1400, "1"),
        (LONG, 30000, "1"),
        (VERSION_2, 30000, "2"),
    ],
    ids=["whole", "in pieces", "faults", "long", "long in pieces", "version 2"],
)
def test_tshark_shows_what_decode_shows(
    turns: list[tuple[int, bytes]],
    size: int,
    version: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_dissector(tmp_path, capsys, "--port", str(SERVER), "--amp-version", version)
    shown: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for packet in dissected(tmp_path, in_segments(turns, size)):
        shown[int(packet["tcp"]["tcp.srcport"])] += boxes_in(packet)
    for port in (CLIENT, SERVER):
        sent = b"".join(data for sender, data in turns if sender == port)
        expected = decoded(sent, tmp_path, capsys, "--full", "--amp-version", version)
        assert len(shown[port]) == len(expected) > 0
        for seen, box in zip(shown[port], expected, strict=True):
            assert seen["asyncamp.kind"] == box["kind"]
            for name, field in _TOLD[box["kind"]].items():
                assert seen.get(field) == box[name]
            values = {name: unescaped(value) for name, value in box["values"].items()}
            assert values_in(seen) == values
            faults = [
                mark["_ws.expert.message"]
                for mark in experts(seen)
                if int(mark["_ws.expert.severity"]) > NOTE
            ]
            assert box.get("faults", []) == faults


@pytest.mark.slow
@needs_tshark
def test_tshark_finds_the_question_of_an_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dissector(tmp_path, capsys)
    decode_as = ("-d", f"tcp.port=={SERVER},asyncamp", "-2")
    packets = dissected(tmp_path, QUESTIONS, *decode_as)
    asked = {
        box["asyncamp.answers"]: (box["asyncamp.asked_in"], packet["frame"]["frame.number"])
        for packet in packets
        for box in boxes_in(packet)
        if "asyncamp.answers" in box
    }
    assert asked == {
        "Sum": ("1", "2"),
        "Divide": ("3", "4"),
        "Hm": ("3", "5"),
        "AskName": ("7", "8"),
        "StartTLS": ("9", "10"),
    }
    assert float(boxes_in(packets[1])[0]["asyncamp.time"]) == 0.001
    assert boxes_in(packets[0])[0]["asyncamp.answered_in"] == "2"


@pytest.mark.slow
@needs_tshark
def test_tshark_marks_where_the_bytes_stop_being_amp(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dissector(tmp_path, capsys, "--port", str(SERVER))
    good = box(_command=b"Sum", _ask=b"1")
    client_hello = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"
    turns = [
        (CLIENT, good + b"GET / HTTP/1.1\r\n\r\n"),
        (SERVER, client_hello),
        (SERVER, good[:-3]),
    ]
    first, second, third = dissected(
        tmp_path, turns, "-o", "tcp.desegment_tcp_streams:FALSE", "-Y", "tcp"
    )
    whole, broken = boxes_in(first)
    assert whole["asyncamp.command"] == "Sum"
    assert experts(whole) == []
    assert [mark["asyncamp.not_amp"] for mark in experts(broken)] == [""]
    # After StartTLS, the rest is for Wireshark's own dissector.
    assert "tls" in second
    (cut,) = boxes_in(third)
    assert [mark["asyncamp.incomplete"] for mark in experts(cut)] == [""]


def test_the_dissector_is_for_the_ports_that_are_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dissector", "--port", "1234", "--port", "4321", "--amp-version", "2"]) == 0
    lua = capsys.readouterr().out
    assert 'local PORTS = "1234,4321"' in lua
    assert "local VERSION = 2" in lua
    with pytest.raises(SystemExit):
        main(["dissector", "--port", "70000"])
    assert "invalid port value: '70000'" in capsys.readouterr().err
