"""What the tests of a service need; imported by name, and never by `amp_asyncio` itself.

- `check_transport` puts a transport through the checks that asyncio's own passes.
- `memory_pair` connects two protocols without sockets; a `Line` puts faults on their connection.
"""

from ..transports.memory import Line, MemoryTransport, memory_pair
from .conformance import TRANSPORT_CHECKS, Check, Connect, check_transport

__all__ = [
    "TRANSPORT_CHECKS",
    "Check",
    "Connect",
    "Line",
    "MemoryTransport",
    "check_transport",
    "memory_pair",
]
