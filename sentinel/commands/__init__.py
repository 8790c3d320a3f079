"""Commands that do more than call one function of another package, one module each."""
