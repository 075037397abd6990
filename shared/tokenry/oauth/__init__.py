"""The messages of OAuth 2.0 as values: read strictly, written to the letter, without any I/O."""
