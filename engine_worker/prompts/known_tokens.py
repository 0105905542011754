"""The check of token ids that come from a client. Pure."""

from gpufc.errors import InvalidRequest
from gpufc.protocol import Tokens


def require_known(tokens: Tokens, n_vocab: int, param: str) -> None:
    """Raises `InvalidRequest`, with the client's field, for an id outside the vocabulary."""
    for token in (min(tokens, default=0), max(tokens, default=0)):
        if not 0 <= token < n_vocab:
            raise InvalidRequest(
                f"token id {token} is not in the model's vocabulary of {n_vocab}", param=param
            )
