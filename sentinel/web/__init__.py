"""Serve health, metrics and candidate tables over HTTP."""
