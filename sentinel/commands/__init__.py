"""One module for each command that does more than call one function."""
