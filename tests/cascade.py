"""Two of the three processes of a call that goes through all of them; the third is the test itself.

python cascade.py middle PORT          serves, prints its own port, and passes each call on to PORT
python cascade.py first PORT HOW TIMEOUT
                                       asks PORT; HOW is "cancel", "timeout" or "killed"
"""

from __future__ import annotations

import asyncio
import sys

from support import Patient, Sum, Wait

from amp_asyncio import AMP, connect, serve


async def middle(port: str) -> None:
    async with connect("127.0.0.1", int(port)) as onward:
        await onward.callRemote(Sum, a=1, b=2)

        class Middle(Patient):
            @Wait.responder
            async def wait(self, name: str) -> dict[str, str]:
                answer: dict[str, str] = await onward.callRemote(Wait, name=name)
                return answer

        async with serve(Middle, "127.0.0.1", 0) as server:
            print(server.sockets[0].getsockname()[1], flush=True)
            await asyncio.Event().wait()


async def first(port: str, how: str, timeout: str) -> None:
    async with connect("127.0.0.1", int(port), AMP) as amp:
        await amp.callRemote(Sum, a=1, b=2)
        asked = amp.call(Wait(name=how), timeout=float(timeout) if how == "timeout" else None)
        print("asked", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        if how == "cancel":
            asked.cancel()
        await asyncio.wait([asked])
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(globals()[sys.argv[1]](*sys.argv[2:]))
