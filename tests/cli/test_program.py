"""The program as a whole: its output, signals, pipes and terminals."""

from __future__ import annotations

import io
import os
import pty
import re
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import shop

import amp_asyncio
from amp_asyncio import AmpBox
from amp_asyncio.cli import main
from amp_asyncio.cli.failures import Status

Run = Callable[..., Any]

PROGRAM = [sys.executable, "-m", "amp_asyncio"]
SUM = AmpBox(_command=b"Sum", _ask=b"1", a="grün".encode()).serialize()


@pytest.fixture
def recorded(tmp_path: Path) -> str:
    path = tmp_path / "recorded"
    path.write_bytes(SUM * 1000)
    return str(path)


def test_the_module_is_the_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["amp-asyncio", "--version"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("amp_asyncio", run_name="__main__")
    assert end.value.code == 0
    assert capsys.readouterr().out == f"amp_asyncio {amp_asyncio.__version__}\n"


def test_a_reader_that_goes(recorded: str, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert run("decode", recorded).printed == (141, "")


def test_a_disk_that_is_full(recorded: str, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    with open("/dev/full", "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        ended = run("decode", recorded)
    assert (ended.status, ended.err) == (
        2,
        "amp-asyncio: cannot write the output: No space left on device\n",
    )


def test_closed_output(recorded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["decode", recorded]) == 0
    assert main(["decode", "/no/such/file"]) == 2


def test_output_that_takes_ascii_alone(recorded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii"))
    assert main(["decode", recorded]) == 0
    assert b'    a  "gr\\xfcn"\n' in written.getvalue()


def test_ctrl_c_while_a_call_waits(run: Run, background: Any) -> None:
    started = threading.Event()

    class Patient(shop.Shop):
        async def hang(self) -> dict[str, Any]:
            started.set()
            return await super().hang()

    call = ("call", background.serve(Patient), "Hang")

    def interrupt() -> None:
        assert started.wait(20)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert run(*call).printed == (130, "")
    thread.join()


def test_ctrl_c_while_it_reads(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(Terminal()))
    assert run("decode").printed == (130, "")


# --- in a process of its own ---


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "status", "out"),
    [
        ("$PROGRAM decode $FILE | head -n 1", "141", '0: question "Sum", tag "1"\n'),
        ("$PROGRAM decode $FILE >&-", "0", ""),
        ("$PROGRAM decode - < $FILE | tail -n 1", "0", '    a  "grün"\n'),
        ("$PROGRAM decode $FILE 2>&- | grep -c Sum", "0", "1000\n"),
        ("xxd -p $FILE | $PROGRAM decode --json | wc -l; true", "0", "1000\n"),
    ],
)
def test_in_a_pipe(recorded: str, line: str, status: str, out: str) -> None:
    if "xxd" in line and not Path("/usr/bin/xxd").exists():
        pytest.skip("xxd is not installed")
    script = f'{line}; echo "${{PIPESTATUS[0]}}" >&2'
    line = script.replace("$PROGRAM", " ".join(PROGRAM)).replace("$FILE", recorded)
    environment = {**os.environ, "PYTHONUTF8": "1"}
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=60, env=environment
    )
    assert (done.stdout, done.stderr) == (out, f"{status}\n")


@pytest.mark.slow
def test_in_a_terminal(background: Any) -> None:
    """Text of a peer moves no cursor, and Ctrl-C ends the program without a traceback."""
    leader, follower = pty.openpty()
    options: dict[str, Any] = {"stdin": follower, "stdout": follower, "stderr": follower}
    options["start_new_session"] = True
    options["preexec_fn"] = lambda: os.close(os.open(os.ttyname(follower), os.O_RDWR))
    address = background.serve()
    call = subprocess.run([*PROGRAM, "call", address, "every-thing", r"text=\x1b[2J"], **options)
    assert call.returncode == 0
    assert os.read(leader, 1000) == b"text: \\x1b[2J\r\n"
    with subprocess.Popen(
        [*PROGRAM, "serve", "shop:Shop"], cwd=Path(__file__).parent, **options
    ) as served:
        assert os.read(leader, 1000).startswith(b"listening on 127.0.0.1:")
        os.write(leader, b"\x03")
        assert served.wait(60) == 0
    assert os.read(leader, 1000).strip() == b"^C"
    os.close(follower)
    os.close(leader)


# --- the guide ---

GUIDE = Path(__file__).parents[2] / "examples" / "command_line.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_the_transcripts_of_the_guide(tmp_path: Path) -> None:
    """A shell runs each line after a `$`, and prints what is in the guide."""
    for name, code in zip(("shop", "desk"), blocks("python"), strict=True):
        (tmp_path / f"{name}.py").write_text(code)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "amp-asyncio"
    program.write_text(f'#!/bin/sh\nexec {" ".join(PROGRAM)} "$@"\n')
    program.chmod(0o755)
    folder = str(Path(amp_asyncio.__file__).parents[1])
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    environment |= {"PYTHONPATH": folder, "PYTHONUTF8": "1"}
    in_folder: dict[str, Any] = {"cwd": tmp_path, "env": environment, "text": True}

    def serve(factory: str) -> subprocess.Popen[str]:
        return subprocess.Popen([*PROGRAM, "serve", factory], stdout=subprocess.PIPE, **in_folder)

    with serve("shop:Shop") as shop_server, serve("desk:Desk") as desk_server:
        servers = {"localhost:1234": shop_server, "localhost:4321": desk_server}
        try:
            addresses = {}
            for written, server in servers.items():
                assert server.stdout is not None
                addresses[written] = server.stdout.readline().split()[-1]
            for transcript in blocks("console"):
                for entry in transcript.removeprefix("$ ").split("\n$ "):
                    line, _, expected = entry.partition("\n")
                    asked = line
                    for written, address in addresses.items():
                        asked = asked.replace(written, address)
                    done = subprocess.run(
                        ["bash", "-c", asked],
                        stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT,
                        timeout=60,
                        **in_folder,
                    )
                    assert done.stdout.strip() == expected.strip(), line
        finally:
            for server in servers.values():
                server.terminate()
    assert [server.returncode for server in servers.values()] == [0, 0]


def test_the_guide_has_every_status_and_every_field(run: Run) -> None:
    guide = GUIDE.read_text()
    for status in Status:
        assert f"\n| {status:d} | " in guide
    fields = re.findall(r'"(asyncamp\.[a-z_]+)"', run("dissector").out)
    assert len(fields) > 10
    for field in set(fields) - {"asyncamp.pair"}:
        assert f"`{field}`" in guide
    for option in ("--tls", "--starttls", "--cafile", "--servername", "--insecure", "--cert", "--key"):
        assert f"`{option}" in guide
