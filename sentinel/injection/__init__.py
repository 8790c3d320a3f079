"""Inject known signals, to measure what the service recovers."""
