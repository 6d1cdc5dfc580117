"""Serving: a server, what it accepts, and how its connections close.

`acceptor.py` makes connections of sockets that were accepted, `server.py` has `Server`, and
`closing.py` closes a connection in time, whatever its class overrides. `addresses.py` reads where a
server is, and `checks.py` checks arguments.
"""
