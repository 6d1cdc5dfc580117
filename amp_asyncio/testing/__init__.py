"""What the tests of a service need; imported by name, and never by `amp_asyncio` itself.

- `pair` connects two AMPs in memory, and `Faults` breaks their connection at any byte.
- `ScriptedPeer` expects commands, answers them as it is told, and says what went differently.
- `check_transport` puts a transport through the checks that asyncio's own passes.
- `memory_pair` connects any two protocols in memory.

`amp_asyncio.testing.plugin` has fixtures for pytest; nothing else here imports pytest.
"""

from ..transports.memory import Line, MemoryTransport, memory_pair
from .conformance import TRANSPORT_CHECKS, Check, Connect, check_transport
from .pairs import Faults, Identity, PairMaker, pair
from .scripted import Expectation, ScriptedPeer

__all__ = [
    "TRANSPORT_CHECKS",
    "Check",
    "Connect",
    "Expectation",
    "Faults",
    "Identity",
    "Line",
    "MemoryTransport",
    "PairMaker",
    "ScriptedPeer",
    "check_transport",
    "memory_pair",
    "pair",
]
