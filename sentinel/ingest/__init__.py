"""Watch folders, form cadences, and hand them to workers."""
