"""Synthetic skies: noise, interference and injected signals, as arrays and as files."""
