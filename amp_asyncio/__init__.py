"""AMP, the Asynchronous Messaging Protocol, for asyncio.

Commands with typed arguments, answered by `async def` responders, over one connection on which both
sides can ask. Wire-compatible with Twisted's `twisted.protocols.amp`. Every public name is here. Each
part of the code imports only from those above it:

errors.py       every exception
limits.py       Limits, of one connection
descriptors.py  closing what a peer has passed, without waiting for it
clock.py        timers that wait in the kernel
logs.py         what a peer's text looks like in the log, and how many lines a peer can cause
wire/           boxes and their bytes, without asyncio and without I/O
commands/       argument types, schemas and commands, without asyncio and without I/O
tls/            certificates
transports/     UNIX sockets that carry descriptors, pipes, memory; they know nothing of AMP
session/        one conversation: calls, responders, StartTLS and switches, the outbox
connection/     the `asyncio.Protocol` between a transport and a session
composed.py     how a public class holds its parts
protocol.py     BinaryBoxProtocol: a connection, as people see it
dispatcher.py   BoxDispatcher: a conversation, as people see it
amp.py          AMP, the class that people subclass: both of these in one
interceptors.py a log line for each call, and metrics
serving/        a server and the connections that it accepts
endpoints.py    connect, serve, unix_connect, unix_serve
running.py      run: a service as a process; what systemd passes and wants to know
processes.py    spawn and stdio: AMP with child processes
client/         Client: connections that stay, spread over many machines
testing/        pairs in memory, a scripted peer, checks for transports; import it by its name
cli/            the command line: `python -m amp_asyncio`, or `amp-asyncio`
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .amp import AMP
from .commands.arguments import (
    Argument,
    Boolean,
    DateTime,
    Decimal,
    Float,
    Integer,
    Path,
    String,
    Unicode,
)
from .commands.command import PROTOCOL_ERRORS, Command
from .commands.descriptors import Descriptor
from .commands.large import BigString, BigUnicode
from .commands.lists import AmpList, ListOf
from .commands.names import python_name
from .commands.streams import Stream, StreamCommand
from .dispatcher import BoxDispatcher
from .endpoints import Server, connect, serve, unix_connect, unix_serve
from .errors import (
    AmpError,
    BadLocalReturn,
    CallCancelled,
    ConnectionLost,
    DeadlineExceeded,
    GiveUp,
    IncompatibleVersions,
    InvalidSignature,
    MalformedAmpBox,
    NoEmptyBoxes,
    NotServing,
    OnlyOneTLS,
    PeerVerifyError,
    ProtocolSwitched,
    RemoteAmpError,
    StreamEnded,
    StreamsUnsupported,
    TooLong,
    TooManyStreams,
    UnhandledCommand,
    UnknownRemoteError,
)
from .limits import Limits
from .protocol import BinaryBoxProtocol
from .session.current import Call, current_call, remaining
from .session.interceptors import Interceptor, Proceed
from .session.locators import CommandLocator, ResponderLocator, SimpleStringLocator
from .session.peers import Credentials, Peer
from .session.starttls import StartTLS
from .session.switching import ProtocolSwitchCommand
from .wire import parser as _parser
from .wire.boxes import (
    ANSWER,
    ASK,
    COMMAND,
    ERROR,
    ERROR_CODE,
    ERROR_DESCRIPTION,
    MAX_KEY_LENGTH,
    MAX_VALUE_LENGTH,
    UNHANDLED_ERROR_CODE,
    UNKNOWN_ERROR_CODE,
    AmpBox,
    Box,
    BoxReceiver,
    BoxSender,
    QuitBox,
)
from .wire.parser import BoxParser, parse, parseString

if TYPE_CHECKING:
    from .client.children import children
    from .client.client import Client, ClientState
    from .client.policy import Backoff, Budget
    from .client.srv import srv
    from .commands.hints import Wire
    from .interceptors import CallLog, CallMetrics
    from .processes import Child, spawn, stdio
    from .running import listen_fds, run, sd_notify
    from .tls.certificates import Certificate, PrivateCertificate

__version__ = "0.1.0"

#: Whether the hottest modules are compiled, and not interpreted. They do the same in both cases.
compiled = not str(_parser.__file__).endswith(".py")

__all__ = [
    "AMP",
    "ANSWER",
    "ASK",
    "COMMAND",
    "ERROR",
    "ERROR_CODE",
    "ERROR_DESCRIPTION",
    "MAX_KEY_LENGTH",
    "MAX_VALUE_LENGTH",
    "PROTOCOL_ERRORS",
    "UNHANDLED_ERROR_CODE",
    "UNKNOWN_ERROR_CODE",
    "AmpBox",
    "AmpError",
    "AmpList",
    "Argument",
    "Backoff",
    "BadLocalReturn",
    "BigString",
    "BigUnicode",
    "BinaryBoxProtocol",
    "Boolean",
    "Box",
    "BoxDispatcher",
    "BoxParser",
    "BoxReceiver",
    "BoxSender",
    "Budget",
    "Call",
    "CallCancelled",
    "CallLog",
    "CallMetrics",
    "Certificate",
    "Child",
    "Client",
    "ClientState",
    "Command",
    "CommandLocator",
    "ConnectionLost",
    "Credentials",
    "DateTime",
    "DeadlineExceeded",
    "Decimal",
    "Descriptor",
    "Float",
    "GiveUp",
    "IncompatibleVersions",
    "Integer",
    "Interceptor",
    "InvalidSignature",
    "Limits",
    "ListOf",
    "MalformedAmpBox",
    "NoEmptyBoxes",
    "NotServing",
    "OnlyOneTLS",
    "Path",
    "Peer",
    "PeerVerifyError",
    "PrivateCertificate",
    "Proceed",
    "ProtocolSwitchCommand",
    "ProtocolSwitched",
    "QuitBox",
    "RemoteAmpError",
    "ResponderLocator",
    "Server",
    "SimpleStringLocator",
    "StartTLS",
    "Stream",
    "StreamCommand",
    "StreamEnded",
    "StreamsUnsupported",
    "String",
    "TooLong",
    "TooManyStreams",
    "UnhandledCommand",
    "Unicode",
    "UnknownRemoteError",
    "Wire",
    "children",
    "compiled",
    "connect",
    "current_call",
    "listen_fds",
    "parse",
    "parseString",
    "python_name",
    "remaining",
    "run",
    "sd_notify",
    "serve",
    "spawn",
    "srv",
    "stdio",
    "unix_connect",
    "unix_serve",
]

# Imported when they are first used: they need cryptography or attrs, or few programs use them.
_LATER = {
    "Certificate": "tls.certificates",
    "PrivateCertificate": "tls.certificates",
    "Wire": "commands.hints",
    "CallLog": "interceptors",
    "CallMetrics": "interceptors",
    "Child": "processes",
    "Client": "client.client",
    "children": "client.children",
    "listen_fds": "running",
    "run": "running",
    "sd_notify": "running",
    "ClientState": "client.client",
    "Backoff": "client.policy",
    "Budget": "client.policy",
    "spawn": "processes",
    "srv": "client.srv",
    "stdio": "processes",
}

# What Twisted calls differently: what to write here.
_IN_TWISTED = {
    "IArgumentType": "Argument",
    "IBoxReceiver": "BoxReceiver",
    "IBoxSender": "BoxSender",
    "IResponderLocator": "ResponderLocator",
    "_wireNameToPythonIdentifier": "python_name",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(f".{_LATER[name]}", __name__), name)
    hint = f"; it is called {_IN_TWISTED[name]} here" if name in _IN_TWISTED else ""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
