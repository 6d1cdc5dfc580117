"""A service that runs on many machines: it ends in order, and tells load balancers how it is.

Run it: python examples/deploy/service.py --listen 127.0.0.1:7001
"""

import argparse
import asyncio
import logging
import ssl
from itertools import count

from bookings import Book, FreeRooms

from amp_asyncio import AMP, Limits, listen_fds, run, serve


class Hotel(AMP):
    numbers = count(1)

    @FreeRooms.responder
    async def free_rooms(self, night: str) -> int:
        return len(night)

    @Book.responder
    async def book(self, night: str, guest: str) -> int:
        return next(self.numbers)


async def main(options: argparse.Namespace) -> None:
    def context() -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(options.certificate)
        return made

    # Clients come back elsewhere after about ten minutes: so the load is even again when a machine
    # was added. A peer that does not answer a ping is taken for dead.
    Hotel.limits = Limits(max_connection_age=options.age, ping_interval=5, ping_timeout=5)
    tls = context() if options.certificate else None
    host, _, port = options.listen.rpartition(":")
    # systemd may have opened the sockets in advance: then no client is refused while this starts.
    sockets = listen_fds()
    if sockets:
        services = [serve(Hotel, sock=sock, ssl=tls) for sock in sockets]
    else:
        services = [serve(Hotel, host, int(port), ssl=tls, trusted_proxies=options.proxies)]
    await run(*services, grace=options.grace, reload=context if tls else None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A service that runs on many machines.")
    parser.add_argument("--listen", default="127.0.0.1:7001", help="HOST:PORT")
    parser.add_argument("--certificate", help="a PEM file with a certificate and its key")
    parser.add_argument("--proxies", nargs="*", default=[], help="networks of load balancers")
    parser.add_argument("--grace", type=float, default=5.0, help="seconds between SIGTERM and the end")
    parser.add_argument("--age", type=float, default=600.0, help="seconds that a connection may live")
    logging.basicConfig(level=logging.WARNING, format="%(process)d %(levelname)s %(message)s")
    asyncio.run(main(parser.parse_args()))
