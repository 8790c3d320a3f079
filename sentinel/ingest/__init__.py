"""Watch folders, group files into cadences, and submit cadences to workers."""
