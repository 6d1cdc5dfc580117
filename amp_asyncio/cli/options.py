"""options: the arguments of the program, and the help about them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from typing import Any, NoReturn

from .failures import Status

__all__ = ["parser"]

_STATUSES = """\
exit status:
  0    done
  1    the peer answered with an error, or does not serve; the bytes are not AMP
  2    the arguments, a file or a module are wrong, or a value does not fit its argument
  3    the connection failed or was lost, or the peer does not speak AMP
  4    the timeout passed
  130  interrupted by Ctrl-C
  141  the reader of the output is gone"""

_CALL = """\
examples:
  amp-asyncio call localhost:1234 Sum a=13 b=81
  amp-asyncio call ./socket Store name=report data=@report.pdf
  amp-asyncio call --commands shop.commands localhost:1234 Book 'seats=[1, 2]' --json
  echo '{"a": 13, "b": 81}' | amp-asyncio call --json localhost:1234 Sum -
  amp-asyncio call --starttls --cafile ca.pem shop.example:1234 Sum a=13 b=81
  amp-asyncio call --timeout 0 localhost:1234 Follow log=errors | grep disk

The types of the values are those of the module that --commands names, which may also be written for
Twisted; or else those that the peer describes; or else everything is text, as numbers, texts and truth
values (True, False) are in AMP as well. Lists and records are JSON. Bytes have escapes, such as \\x00
and \\\\; @FILE stands for what is in a file. Arguments can also be one JSON object, or - to read it
from stdin.

Of a stream, each item that comes is a line, as soon as it comes, and the answer is at the end. For one
that takes items, each line of stdin is one: as a value, but without @FILE, or JSON with --json. The
types of a stream have to be known: from --commands, or because the peer describes them.

"""

_DESCRIBE = """\
examples:
  amp-asyncio describe localhost:1234
  amp-asyncio describe localhost:1234 Sum --json

Types that end in ? may be left out. The class of the peer has to say describable = True.

"""

_PING = """\
example:
  amp-asyncio ping --timeout 2 localhost:1234

Any answer counts, also one that says that the command is unknown.

"""

_HEALTH = """\
examples:
  amp-asyncio health --timeout 2 localhost:1234
  amp-asyncio health --timeout 2 localhost:1234 db

It prints "serving" and ends with status 0, or "not serving" and 1: a probe needs nothing else.

"""

_SERVE = """\
examples:
  amp-asyncio serve shop:Counter localhost:1234
  amp-asyncio serve shop:Counter ./socket
  amp-asyncio serve --tls --cert server.pem shop:Counter :1234

It prints where it listens. Ctrl-C closes it in order: what is being answered is answered. A second
Ctrl-C aborts what is left. The module is looked for in the current folder, too."""

_DECODE = """\
examples:
  amp-asyncio decode recorded.bin
  xxd recorded.bin | amp-asyncio decode
  echo 00045f61736b0001310008... | amp-asyncio decode --json | jq .command

Each box is printed with the offset of its first byte. Values are cut, unless --full or --json is
given. With --json, each box is one object. Unprintable bytes become escapes, such as \\x00."""

_DISSECTOR = """\
examples:
  amp-asyncio dissector --port 1234 > amp.lua
  tshark -X lua_script:amp.lua -r capture.pcap -Y 'asyncamp.command == "Sum"'
  tshark -X lua_script:amp.lua -r capture.pcap -d tcp.port==1234,asyncamp

In Wireshark, put amp.lua into the folder of personal Lua plugins (Help, About Wireshark, Folders)."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End with one line."""
        self.exit(Status.USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _runs(module: str, function: str) -> Callable[[Any], Status]:
    """Return what runs a subcommand; what it needs is imported then."""

    def run(options: Any) -> Status:
        done: Status = getattr(import_module(f".{module}", __package__), function)(options)
        return done

    return run


def _port(text: str) -> int:
    number = int(text)
    if not 0 < number < 65536:
        raise ValueError
    return number


_port.__name__ = "port"


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError
    return number


_seconds.__name__ = "number of seconds"


def parser() -> argparse.ArgumentParser:
    """Return what reads the arguments."""
    from .. import __version__

    whole = _Parser(
        prog="amp-asyncio",
        description="AMP from the command line: ask, serve, and read what was recorded.",
        epilog=_STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    whole.add_argument("--version", action="version", version=f"amp_asyncio {__version__}")
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, what: str, epilog: str, module: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=what,
            description=f"{what[0].upper()}{what[1:]}.",
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        added.set_defaults(run=_runs(module, name), json=False)
        return added

    _add_call(add("call", "ask a peer to do a command", _CALL + _STATUSES, "calling"))
    _add_describe(
        add("describe", "print the commands that a peer answers", _DESCRIBE + _STATUSES, "calling")
    )
    _add_health(add("health", "ask whether a peer serves", _HEALTH + _STATUSES, "calling"))
    _add_connection(add("ping", "ask whether a peer is there", _PING + _STATUSES, "calling"))
    _add_serve(add("serve", "serve a class of a module", _SERVE, "serving"))

    _add_decode(add("decode", "show recorded bytes as boxes", _DECODE, "decode"))
    _add_dissector(add("dissector", "print Lua for Wireshark and tshark", _DISSECTOR, "dissector"))
    return whole


def _add_connection(command: argparse.ArgumentParser) -> None:
    command.add_argument("address", metavar="ADDRESS", help="host:port, or the path of a UNIX socket")
    command.add_argument("--json", action="store_true", help="print JSON, errors included")
    command.add_argument(
        "--timeout",
        type=_seconds,
        default=30.0,
        metavar="SECONDS",
        help="how long all of it may take (30); 0 for no limit",
    )
    command.add_argument("--verbose", action="store_true", help="print each box to stderr")
    tls = command.add_argument_group("TLS").add_mutually_exclusive_group()
    tls.add_argument("--tls", action="store_true", help="the peer expects TLS")
    tls.add_argument("--starttls", action="store_true", help="begin in the clear, then start TLS")
    tls_options = command.add_argument_group("with --tls or --starttls")
    tls_options.add_argument(
        "--cafile",
        metavar="FILE",
        help="verify the peer by these authorities, and not by those of the system",
    )
    tls_options.add_argument("--insecure", action="store_true", help="do not verify the peer")
    tls_options.add_argument(
        "--servername", metavar="NAME", help="the name to verify, if it is not the host of ADDRESS"
    )
    _add_certificate(tls_options)


def _add_certificate(group: Any) -> None:
    group.add_argument("--cert", metavar="FILE", help="the certificate to present, with its key")
    group.add_argument("--key", metavar="FILE", help="its key, if that is in another file")


def _add_call(command: argparse.ArgumentParser) -> None:
    _add_connection(command)
    command.add_argument("command", metavar="COMMAND", help="the name of the command")
    command.add_argument(
        "arguments", metavar="NAME=VALUE", nargs="*", help="the arguments; or JSON; or - for stdin"
    )
    command.add_argument("--commands", metavar="MODULE", help="the module with the command classes")
    command.add_argument(
        "--raw", action="store_true", help="do not ask the peer for the types: all values are text"
    )
    command.add_argument("--no-answer", action="store_true", help="ask for no answer")


def _add_describe(command: argparse.ArgumentParser) -> None:
    _add_connection(command)
    command.add_argument("command", metavar="COMMAND", nargs="?", help="one command of the peer")


def _add_health(command: argparse.ArgumentParser) -> None:
    _add_connection(command)
    command.add_argument("service", metavar="SERVICE", nargs="?", help="one service of the peer")


def _add_serve(command: argparse.ArgumentParser) -> None:
    command.add_argument("factory", metavar="MODULE:CLASS", help="a subclass of AMP, or what makes one")
    command.add_argument(
        "address",
        metavar="ADDRESS",
        nargs="?",
        default="localhost:0",
        help="host:port, :port for every interface, or a path (localhost, any free port)",
    )
    command.add_argument("--verbose", action="store_true", help="print each box to stderr")
    command.add_argument("--tls", action="store_true", help="expect TLS")
    command.add_argument(
        "--cafile", metavar="FILE", help="clients must have a certificate by one of these authorities"
    )
    _add_certificate(command)


def _add_version(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--amp-version", type=int, choices=(1, 2), default=1, help="the version of AMP (1)"
    )


def _add_decode(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", nargs="?", default="-", help="the bytes; - for stdin")
    form = command.add_mutually_exclusive_group()
    form.add_argument(
        "--raw", dest="format", action="store_const", const="raw", help="they are as they were sent"
    )
    form.add_argument(
        "--hex",
        dest="format",
        action="store_const",
        const="hex",
        help="they are text: hexadecimal digits, a dump by xxd or hexdump -C, or b'...'",
    )
    _add_version(command)
    command.add_argument("--full", action="store_true", help="do not cut values")
    command.add_argument("--json", action="store_true", help="print JSON")


def _add_dissector(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--port", type=_port, action="append", default=[], help="a port that speaks AMP; repeatable"
    )
    _add_version(command)
