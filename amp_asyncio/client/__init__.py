"""The client: connections that stay, spread over the addresses of a service.

`client.py` has `Client`. The decisions are in `policy.py`, which knows neither asyncio nor a clock:
when to try again, which address is next, which connection is asked, how many questions are asked again.
"""
