"""The type checker that jaxtyping's import hook wraps around every function of the science."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
