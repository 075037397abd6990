"""
One suite for every adapter of a port: a test here is written against the port and run with each
implementation.

The real components come from the fixtures of tests/conftest.py (`cassandra_keyspace`, `s3_bucket`), so a
parameter that stands for one of them asks for it by `request.getfixturevalue`, when it is its turn.
"""
