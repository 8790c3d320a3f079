"""Figures and HTML pages; only this package imports matplotlib."""
