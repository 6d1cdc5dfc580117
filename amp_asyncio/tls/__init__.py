"""TLS: certificates, and the SSL contexts made from them."""
