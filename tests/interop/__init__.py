"""Tests against other implementations of AMP, each in a process of its own."""
