"""Shape and type checks are on for the science while tests run."""

from jaxtyping import install_import_hook

_HOOK = install_import_hook("aetherscan", "shapes.check")
