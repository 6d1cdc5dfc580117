"""AMP, the Asynchronous Messaging Protocol, for asyncio.

Commands with typed arguments, answered by `async def` responders, over one connection on which both
sides can ask. Wire-compatible with Twisted's `twisted.protocols.amp`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .amp import AMP
from .commands.arguments import (
    AmpList,
    Argument,
    Boolean,
    DateTime,
    Decimal,
    Descriptor,
    Float,
    Integer,
    ListOf,
    Path,
    String,
    Unicode,
)
from .commands.command import PROTOCOL_ERRORS, Command
from .commands.large import BigString, BigUnicode
from .endpoints import Server, connect, serve, unix_connect, unix_serve
from .errors import (
    AmpError,
    BadLocalReturn,
    ConnectionLost,
    IncompatibleVersions,
    InvalidSignature,
    MalformedAmpBox,
    NoEmptyBoxes,
    OnlyOneTLS,
    PeerVerifyError,
    ProtocolSwitched,
    RemoteAmpError,
    TooLong,
    UnhandledCommand,
    UnknownRemoteError,
)
from .limits import Limits
from .protocol import BinaryBoxProtocol
from .session.dispatcher import BoxDispatcher
from .session.locators import CommandLocator, ResponderLocator, SimpleStringLocator
from .session.starttls import StartTLS
from .session.switching import ProtocolSwitchCommand
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
    from .processes import Child, spawn, stdio
    from .tls.certificates import Certificate, PrivateCertificate

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
    "Certificate",
    "Child",
    "Command",
    "CommandLocator",
    "ConnectionLost",
    "DateTime",
    "Decimal",
    "Descriptor",
    "Float",
    "IncompatibleVersions",
    "Integer",
    "InvalidSignature",
    "Limits",
    "ListOf",
    "MalformedAmpBox",
    "NoEmptyBoxes",
    "OnlyOneTLS",
    "Path",
    "PeerVerifyError",
    "PrivateCertificate",
    "ProtocolSwitchCommand",
    "ProtocolSwitched",
    "QuitBox",
    "RemoteAmpError",
    "ResponderLocator",
    "Server",
    "SimpleStringLocator",
    "StartTLS",
    "String",
    "TooLong",
    "UnhandledCommand",
    "Unicode",
    "UnknownRemoteError",
    "connect",
    "parse",
    "parseString",
    "serve",
    "spawn",
    "stdio",
    "unix_connect",
    "unix_serve",
]


# What brings in other packages, as cryptography and attrs, or is not for everybody, is imported when it
# is first used.
_LATER = {
    "Certificate": "tls.certificates",
    "PrivateCertificate": "tls.certificates",
    "Child": "processes",
    "spawn": "processes",
    "stdio": "processes",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(f".{_LATER[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
