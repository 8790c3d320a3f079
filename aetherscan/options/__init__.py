"""Every option of a search and of a training, with its unit, limits and help text.

Only the standard library is imported, so that the command line and the configuration can list the options at once.
"""
