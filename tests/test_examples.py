"""The examples run as they stand, and so does the code in README.md and in the guides."""

from __future__ import annotations

import ast
import inspect
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from amp_asyncio import AmpBox, parseString

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
README = ROOT / "README.md"
INDEX = EXAMPLES / "README.md"
GUIDES = sorted(set(EXAMPLES.glob("*.md")) - {INDEX})
PAGES = [README, INDEX, *GUIDES, *sorted((ROOT / "tests").rglob("*.md"))]

# Much longer than anything here takes.
PATIENCE = 300

# Warnings are shown, so that an example which leaves something open has something in its stderr.
PYTHON = (sys.executable, "-u", "-W", "default")

# The last lines of ampserver.py.
CLOSING = ["no new connections; finishing open requests", "closed"]

TWISTED_COMMANDS = """
import sys
from twisted.internet import endpoints, protocol, reactor, task
from twisted.protocols import amp

class Sum(amp.Command):
    arguments = [(b"a", amp.Integer()), (b"b", amp.Integer())]
    response = [(b"total", amp.Integer())]

class Divide(amp.Command):
    arguments = [(b"numerator", amp.Integer()), (b"denominator", amp.Integer())]
    response = [(b"result", amp.Float())]
    errors = {ZeroDivisionError: b"ZERO_DIVISION"}
"""

TWISTED_CLIENT = f"""{TWISTED_COMMANDS}
async def ask(reactor, port):
    endpoint = endpoints.TCP4ClientEndpoint(reactor, "127.0.0.1", int(port))
    peer = await endpoints.connectProtocol(endpoint, amp.AMP())
    print(await peer.callRemote(Sum, a=13, b=81))
    print(await peer.callRemote(Divide, numerator=1, denominator=8))
    try:
        await peer.callRemote(Divide, numerator=1234, denominator=0)
    except ZeroDivisionError as error:
        print("ZeroDivisionError:", error)
    print(await peer.callRemote(Sum, a=1, b=2))

task.react(ask, sys.argv[1:])
"""

TWISTED_SERVER = f"""{TWISTED_COMMANDS}
class Math(amp.AMP):
    @Sum.responder
    def sum(self, a, b):
        return {{"total": a + b}}

    @Divide.responder
    def divide(self, numerator, denominator):
        return {{"result": numerator / denominator}}

listening = reactor.listenTCP(0, protocol.Factory.forProtocol(Math), interface="127.0.0.1")
print("listening on port", listening.getHost().port)
reactor.run()
"""


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Let children take SIGINT: a shell starts what stands before an `&`, and so them, without."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def output_of(*command: str | Path) -> list[str]:
    """Run Python on `command`, see that nothing goes wrong, and return the lines that it prints."""
    done = subprocess.run([*PYTHON, *command], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


class Running:
    """Python at work on something that is talked to while it runs."""

    def __init__(self, *command: str | Path) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [*PYTHON, *command], stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1
        )

    def line(self) -> str:
        """Wait for the next line that it prints."""
        assert self.process.stdout is not None
        # What hangs is killed, and then there is no line.
        timer = threading.Timer(PATIENCE, self.process.kill)
        timer.start()
        try:
            return self.process.stdout.readline().rstrip("\n")
        finally:
            timer.cancel()

    def port(self) -> str:
        """Wait for the line that says where it listens, and return the port that this ends with."""
        return self.line().rpartition(" ")[2]

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line)

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def rest(self) -> list[str]:
        """End its input, see that it ends and that nothing went wrong, and return its last lines."""
        output, errors = self.process.communicate(timeout=PATIENCE)
        assert (self.process.returncode, errors) == (0, "")
        return output.splitlines()


@contextmanager
def running(*command: str | Path) -> Iterator[Running]:
    program = Running(*command)
    with program.process:
        try:
            yield program
        finally:
            program.process.kill()


def code_blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def headings(page: Path, marks: str = "#+") -> list[str]:
    return re.findall(rf"^{marks} (.+)$", prose(page), re.MULTILINE)


def anchor(heading: str) -> str:
    """Return the name by which GitHub links to a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)]+)\)", prose(page))


def resolves(link: str, page: Path) -> bool:
    """Return whether a link leads to a file that exists, and to a heading in it."""
    if link.startswith("https://"):
        return True
    path, _, fragment = link.partition("#")
    target = page.parent / path if path else page
    if not target.exists():
        return False
    return not fragment or fragment in map(anchor, headings(target))


by_name = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
each_guide = pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)


# --- quickstart.py ---


@pytest.mark.system
def test_quickstart() -> None:
    assert output_of(EXAMPLES / "quickstart.py") == [
        "13 + 81 = 94",
        "1 / 0 failed: division by zero",
        "The server says: Hello, Ada!",
    ]


# --- hotel.py ---


@pytest.mark.system
def test_hotel_demonstration() -> None:
    assert output_of(EXAMPLES / "hotel.py") == [
        "a night costs 99.5",
        "booking 1: room 102 for 199.0",
        "no DOUBLE is free, but others are: {'SINGLE': 1, 'DOUBLE': 0}",
        "not sent: Length of 'guests' must be >= 1",
        "found: Ada",
        "no booking has the number 1",
    ]


@pytest.mark.system
def test_hotel_between_two_programs() -> None:
    hotel = EXAMPLES / "hotel.py"
    with running(hotel, "serve", "0") as server:
        port = server.port()
        assert output_of(hotel, "book", port, "Ada", "Grace") == ["booking 1: room 102"]
        assert output_of(hotel, "book", port, "Ada") == ["booking 2: room 103"]
        server.interrupt()
        assert server.rest() == []
    done = subprocess.run([*PYTHON, hotel, "sleep"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "hotel.py book 1234 Ada Grace" in done.stderr


# --- ampserver.py and ampclient.py ---


@pytest.mark.system
def test_ampclient_asks_ampserver() -> None:
    with running(EXAMPLES / "ampserver.py", "0") as server:
        assert output_of(EXAMPLES / "ampclient.py", server.port()) == [
            "13 + 81 = 94",
            "The server could not divide: division by zero",
            "1234 / 0 = inf",
        ]
        server.interrupt()
        assert server.rest() == ["13 + 81 = 94", "1234 / 0 requested", *CLOSING]


@pytest.mark.system
def test_a_twisted_client_asks_ampserver() -> None:
    with running(EXAMPLES / "ampserver.py", "0") as server:
        # (What Twisted has to say about itself in stderr is not for us to judge.)
        client = [sys.executable, "-c", TWISTED_CLIENT, server.port()]
        done = subprocess.run(client, capture_output=True, text=True, timeout=PATIENCE, check=True)
        assert done.stdout.splitlines() == [
            "{'total': 94}",
            "{'result': 0.125}",
            "ZeroDivisionError: division by zero",
            "{'total': 3}",
        ]
        server.interrupt()
        assert server.rest() == [
            "13 + 81 = 94",
            "1 / 8 requested",
            "1234 / 0 requested",
            "1 + 2 = 3",
            *CLOSING,
        ]


@pytest.mark.system
def test_ampserver_closes_in_order_when_it_is_terminated() -> None:
    with running(EXAMPLES / "ampserver.py", "0") as server:
        address = ("127.0.0.1", int(server.port()))
        with socket.create_connection(address, PATIENCE) as client:
            client.sendall(AmpBox(_command=b"Sum", _ask=b"1", a=b"13", b=b"81").serialize())
            assert parseString(client.recv(1000)) == [{b"_answer": b"1", b"total": b"94"}]
            assert server.line() == "13 + 81 = 94"
            server.terminate()
            assert client.recv(1000) == b"", "the server has closed its side, and reset nothing"
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address, PATIENCE)
        assert server.rest() == CLOSING


@pytest.mark.system
def test_ampclient_asks_a_twisted_server() -> None:
    with running("-c", TWISTED_SERVER) as server:
        assert output_of(EXAMPLES / "ampclient.py", server.port()) == [
            "13 + 81 = 94",
            "The server could not divide: division by zero",
            "1234 / 0 = inf",
        ]


@pytest.mark.system
def test_the_port_is_that_of_twisteds_examples() -> None:
    program = f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); import ampserver, ampclient\n"
    program += "print(ampserver.HOST, ampserver.PORT, ampclient.PORT)"
    assert output_of("-c", program) == ["127.0.0.1 1234 1234"]


# --- streams ---


@pytest.mark.system
def test_following_a_file() -> None:
    transcript = output_of(EXAMPLES / "tail.py")
    assert [line for line in transcript if line.startswith("client")] == [
        "client: ['start', 'first']",
        "client: 1 start",
        "client: 2 first",
        "client: 3 second",
        "client: no such file: yesterday",
    ]
    closed = [line for line in transcript if line.startswith("server")]
    assert closed == [f"server: today is closed after {lines} lines" for lines in (2, 3)]


@pytest.mark.system
def test_uploading_a_file() -> None:
    *progress, refused, stored = output_of(EXAMPLES / "upload.py")
    assert progress[:5] == [
        *(f"client: {percent} % of small" for percent in (25, 50, 75, 100)),
        "client: the server has 2048000 bytes of it",
    ]
    assert refused == "client: large has more than 3000000 bytes"
    assert stored == "stored: small"


@pytest.mark.system
def test_a_chat_over_streams() -> None:
    assert output_of(EXAMPLES / "chat_stream.py") == [
        "Ada sees   Said(who='*', text='Grace came in')",
        "Ada sees   Said(who='Grace', text='Good morning!')",
        "Grace sees Said(who='Ada', text='Good morning, Grace.')",
        "Grace cannot be Ada: Ada is here already",
        "Ada sees   Said(who='*', text='Grace has left')",
    ]


@pytest.mark.system
@pytest.mark.parametrize("name", ["tail.py"])
def test_a_program_says_how_it_is_run(name: str) -> None:
    done = subprocess.run([*PYTHON, EXAMPLES / name, "what?"], capture_output=True, text=True)
    assert done.returncode == 1
    assert name in done.stderr


# --- chat.py ---


@pytest.mark.system
def test_chat_demonstration() -> None:
    transcript = output_of(EXAMPLES / "chat.py")
    # What several guests see, they see in no particular order.
    assert [line for line in transcript if line.startswith("Ada sees")] == [
        "Ada sees    | * Grace came in",
        "Ada sees    | Grace: Good morning!",
        "Ada sees    | * Edsger came in",
        "Ada sees    | Edsger: Hello, both.",
    ]
    assert [line for line in transcript if line.startswith("Grace sees")] == [
        "Grace sees  | * Edsger came in",
        "Grace sees  | Edsger: Hello, both.",
        "Grace sees  | Ada: Is he gone?",
    ]
    assert [line for line in transcript if " sees " not in line] == [
        "Edsger cannot be Ada: Ada is here already",
        "Edsger finds Ada and Grace",
        "Edsger was heard by 2",
        "Ada was heard by 1",
    ]


@pytest.mark.system
def test_chat_at_the_terminal() -> None:
    chat = EXAMPLES / "chat.py"
    with running(chat, "serve", "0") as room:
        port = room.port()
        with running(chat, "join", "Ada", port) as ada:
            assert ada.line() == "* here: no other guests"
            with running(chat, "join", "Ada", port) as other:
                assert other.process.communicate(timeout=PATIENCE) == (
                    "",
                    "cannot join: Ada is here already\n",
                )
                assert other.process.returncode == 1
            with running(chat, "join", "Grace", port) as grace:
                assert grace.line() == "* here: Ada"
                assert ada.line() == "* Grace came in"
                ada.type("Hello?\n")
                assert grace.line() == "Ada: Hello?"
                grace.type("Hello!\n")
                assert ada.line() == "Grace: Hello!"
                # She leaves by ending her input.
                assert grace.rest() == []
            room.interrupt()
            assert room.rest() == []
            # Ada, who stayed, notices that the room is closed.
            assert ada.process.wait(PATIENCE) == 0
            assert ada.rest() == []


@pytest.mark.system
def test_chat_says_how_it_is_run() -> None:
    done = subprocess.run([*PYTHON, EXAMPLES / "chat.py", "leave"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "chat.py join NAME" in done.stderr


# --- login_secret.py and login_certificate.py ---


@pytest.mark.system
def test_login_with_a_secret() -> None:
    assert output_of(EXAMPLES / "login_secret.py") == [
        "Ada asks: Ada has 94",
        "A stranger who claims to be Ada: wrong user or wrong secret",
        "A stranger who only asks finds no such command",
    ]


@pytest.mark.system
def test_login_with_a_certificate() -> None:
    assert output_of(EXAMPLES / "login_certificate.py") == [
        "Ada sees that the bank is open",
        "Ada asks: Ada has 94",
        "A stranger who claims to be Ada is refused: PeerVerifyError",
        "A stranger without a certificate sees that the bank is open",
        "A stranger without a certificate finds no other command",
    ]


# --- tracing.py ---


@pytest.mark.system
def test_tracing() -> None:
    assert output_of(EXAMPLES / "tracing.py") == [
        "traces: 1",
        "a journey (internal in the client process)",
        "  Book (client in the client process: NoSuchRoom)",
        "    Book (server in the server process: NoSuchRoom)",
        "  Book (client in the client process)",
        "    Book (server in the server process)",
        "      AskName (client in the server process)",
        "        AskName (server in the client process)",
    ]


# --- metrics_prometheus.py ---


@pytest.mark.system
def test_metrics_for_prometheus() -> None:
    expected = []
    for direction in ("asking", "answering"):
        labels = f'command="Divide",direction="{direction}"'
        expected += [
            f"amp_calls_running{{{labels}}} 0.0",
            f'amp_calls_total{{{labels},outcome="ok"}} 2.0',
            f'amp_calls_total{{{labels},outcome="ZeroDivisionError"}} 1.0',
            f"amp_call_seconds_count{{{labels}}} 3.0",
        ]
    assert sorted(output_of(EXAMPLES / "metrics_prometheus.py")) == sorted(expected)


# --- secure_switch.py ---


@pytest.mark.system
def test_secure_switch() -> None:
    transcript = output_of(EXAMPLES / "secure_switch.py")
    # Each run makes its own certificates, and what they are known by is in the first two lines.
    known = [re.fullmatch(r"certificates \| \w+: (.*)", line) for line in transcript[:2]]
    server, client = (found[1] for found in known if found is not None)
    assert re.fullmatch(r"server\.example, sha256 [0-9a-f]{16}\.\.\.", server)
    assert re.fullmatch(r"client\.example, sha256 [0-9a-f]{16}\.\.\.", client)
    assert transcript[2:] == [
        "in the clear | the server says: Hello, unknown client.",
        "in the clear | the server does not switch: start TLS first",
        f"secured      | the client talks to {server}",
        "secured      | the server says: Hello, client.example.",
        f"secured      | the server talks to {client}",
        "switched     | client: good morning",
        "switched     | server: GOOD MORNING",
        "switched     | client: is anybody listening?",
        "switched     | server: IS ANYBODY LISTENING?",
        "closed",
    ]


# --- switch_to_http.py ---


@pytest.mark.system
def test_switch_to_http() -> None:
    assert output_of(EXAMPLES / "switch_to_http.py") == [
        "AMP:  no HTTP yet: log in first",
        "AMP:  wrong password: access denied for Ada",
        "AMP:  logged in as Ada",
        "HTTP: HTTP/1.1 200 OK",
        "HTTP: Content-Type: text/plain; charset=utf-8",
        "HTTP: Hello, Ada. You asked for /engine.",
    ]


# --- switch_to_streams.py ---


@pytest.mark.system
def test_switch_to_streams() -> None:
    assert output_of(EXAMPLES / "switch_to_streams.py") == [
        "client: the library cannot be sent: library may have at most 2000000 bytes",
        "server: expecting novel, 1100000 bytes",
        "server: received novel, 1100000 bytes",
        "client: the novel has arrived intact",
    ]


# --- pass_descriptor.py ---


@pytest.mark.system
def test_pass_descriptor() -> None:
    assert output_of(EXAMPLES / "pass_descriptor.py") == [
        "connection 1: Hello!",
        "connection 2: Hello!",
        "served by the worker",
    ]


# --- worker_pool.py ---


@pytest.mark.system
def test_worker_pool() -> None:
    assert output_of(EXAMPLES / "worker_pool.py") == [
        "25 % done",
        "50 % done",
        "75 % done",
        "100 % done",
        "17984 primes below 200000",
    ]


# --- test_service.py ---


@pytest.mark.system
def test_service() -> None:
    example = str(EXAMPLES / "test_service.py")
    output = output_of("-m", "pytest", "-n", "0", "-p", "no:cacheprovider", example)
    assert output[-1].startswith("10 passed")


# --- README.md ---


def test_the_readmes_code_is_the_quickstart() -> None:
    source = (EXAMPLES / "quickstart.py").read_text()
    docstring = ast.parse(source).body[0]
    code = "\n".join(source.splitlines()[docstring.end_lineno :]).strip()
    assert [block.strip() for block in code_blocks(README, "python")] == [code]


def test_the_readme_shows_what_the_quickstart_prints() -> None:
    shown = [block.splitlines() for block in code_blocks(README, "text")]
    assert shown == [output_of(EXAMPLES / "quickstart.py")]


# --- the guides ---


@pytest.fixture
def log_level() -> Iterator[None]:
    logger = logging.getLogger("amp_asyncio")
    before = logger.level
    yield
    logger.setLevel(before)


@each_guide
@pytest.mark.usefixtures("log_level")
async def test_the_code_of_a_guide_runs(guide: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run the blocks in one namespace; what they print is in the blocks marked `text`.

    (A block marked `py` is code for Twisted, shown for comparison.)
    """
    blocks = code_blocks(guide, "python")
    assert blocks
    names: dict[str, Any] = {"__name__": guide.stem}
    for block in blocks:
        code = compile(block, guide.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        outcome = eval(code, names)
        if inspect.isawaitable(outcome):
            await outcome
    assert capsys.readouterr().out == "".join(code_blocks(guide, "text"))


def test_the_worker_of_the_guide_answers(tmp_path: Path) -> None:
    worker, asking = code_blocks(EXAMPLES / "processes.md", "python")
    (tmp_path / "worker.py").write_text(worker)
    asking = f"from worker import *\n{asking}\nprint(asyncio.run(ask(sys.argv[1])))"
    (tmp_path / "asking.py").write_text(asking)
    assert output_of(tmp_path / "asking.py", tmp_path / "worker.py") == ["{'square': 144}"]


@pytest.mark.parametrize("page", [README, INDEX, *GUIDES], ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_begins_with_its_contents(page: Path) -> None:
    contents = re.findall(
        r"^- \[([^]]+)\]\(#([^)]+)\)$", prose(page).partition("\n## ")[0], re.MULTILINE
    )
    assert contents == [(heading.replace("`", ""), anchor(heading)) for heading in headings(page, "##")]


def test_the_index_lists_every_guide_and_every_program() -> None:
    listed = {link for link in links(INDEX) if not link.startswith("#")}
    assert listed == {path.name for path in [*GUIDES, *EXAMPLES.glob("*.py")]}


# --- links ---


@by_name
def test_the_links_of_a_page_resolve(page: Path) -> None:
    assert [link for link in links(page) if not resolves(link, page)] == []


def test_links_that_lead_nowhere_are_found() -> None:
    assert resolves("#features", README)
    assert resolves("examples/limits.md#the-limits", README)
    assert not resolves("#no-such-heading", README)
    assert not resolves("examples/limits.md#no-such-heading", README)
    assert not resolves("examples/no_such_guide.md", README)
