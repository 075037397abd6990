"""
Signatures and their envelopes: JWK (RFC 7517), JWS (RFC 7515), thumbprints (RFC 7638), sealed keys.

The only package that touches `cryptography`. Nothing here reads a clock, a file or the network.
"""
