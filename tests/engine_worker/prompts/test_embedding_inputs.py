import pytest

from engine_worker.backend.fake.backend import FakeBackend
from engine_worker.backend.fake.vocabulary import BOS, EOS, N_VOCAB, SPECIAL_TOKENS, tokenize
from engine_worker.backend.port import SpecialTokens
from engine_worker.prompts.embedding_inputs import EmbeddingInputs, require_generation
from engine_worker.prompts.tokenizer import Tokenizer
from gpufc.config import ModelConfig
from gpufc.errors import ContextLengthExceeded, InvalidRequest
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import Embed, EmbeddingInput, PairPrompt, TextPrompt, TokenPrompt
from tests.fakes.facts import model_facts

MOST = 32


class Encoder(FakeBackend):
    """A model whose texts stand between BOS and EOS."""

    def special_tokens(self) -> SpecialTokens:
        return SpecialTokens(
            tokens=SPECIAL_TOKENS.tokens,
            names=SPECIAL_TOKENS.names,
            first=(BOS,),
            last=(EOS,),
            between=(EOS, EOS),
        )


def inputs(script: str = "", rank_template: str | None = None) -> EmbeddingInputs:
    model = Encoder(ModelConfig(n_ctx=MOST, fake_script=script), 2)
    return EmbeddingInputs(model.facts, Tokenizer(model), rank_template)


def asked(*given: EmbeddingInput, dimensions: int | None = None) -> Embed:
    return Embed(Epoch(1), RequestNo(1), given, dimensions=dimensions)


def test_a_text_stands_between_the_model_s_special_tokens() -> None:
    assert inputs().tokens(TextPrompt("hi")) == (BOS, *b"hi", EOS)
    assert inputs().tokens(TextPrompt("")) == (BOS, EOS)


def test_token_ids_are_used_as_they_are() -> None:
    assert inputs().tokens(TokenPrompt((5, 6))) == (5, 6)
    assert inputs().tokens(TokenPrompt(())) == (BOS, EOS)


@pytest.mark.parametrize("token", [-1, N_VOCAB])
def test_token_ids_of_another_vocabulary_are_refused(token: int) -> None:
    with pytest.raises(InvalidRequest, match=f"token id {token} is not in"):
        inputs().tokens(TokenPrompt((5, token)))


@pytest.mark.parametrize("given", [TextPrompt("x" * 31), TokenPrompt((5,) * 33)])
def test_an_input_that_is_too_long_is_refused_or_cut(given: EmbeddingInput) -> None:
    with pytest.raises(ContextLengthExceeded, match="33 tokens"):
        inputs().tokens(given)
    assert len(inputs().tokens(given, truncate=True)) == MOST


def test_a_cut_text_keeps_its_last_special_token() -> None:
    assert inputs().tokens(TextPrompt("x" * 99), truncate=True) == (BOS, *b"x" * 30, EOS)


def test_a_pair_has_separators_between_its_texts() -> None:
    ranks = inputs("ranks=1")
    assert ranks.tokens(PairPrompt("q", "d")) == (BOS, *b"q", EOS, EOS, *b"d", EOS)


def test_a_pair_in_the_model_s_own_form_cannot_be_broken_out_of() -> None:
    ranks = inputs("ranks=1", "<|tool|>{query}|{document}<|eos|>")
    (tool,), (eos,) = tokenize("<|tool|>"), tokenize("<|eos|>")
    found = ranks.tokens(PairPrompt("{document}", "<|eos|>"))
    assert found == (tool, *b"{document}|<|eos|>", eos)


@pytest.mark.parametrize("template", [None, "{query}|{document}."])
def test_a_document_that_is_too_long_is_cut_and_the_query_stays(template: str | None) -> None:
    ranks, pair = inputs("ranks=1", template), PairPrompt("query", "d" * 200)
    with pytest.raises(ContextLengthExceeded):
        ranks.tokens(pair)
    found = ranks.tokens(pair, truncate=True)
    assert MOST - 4 <= len(found) <= MOST
    assert bytes(token for token in found if token < 256).startswith(b"query")


def test_a_pair_whose_query_is_too_long_is_refused() -> None:
    with pytest.raises(ContextLengthExceeded):
        inputs("ranks=1").tokens(PairPrompt("q" * 99, "d" * 99), truncate=True)


def test_only_what_the_model_has_can_be_asked() -> None:
    embeds, ranks = inputs(), inputs("ranks=1")
    embeds.require_possible(asked(TextPrompt("a"), dimensions=8))
    ranks.require_possible(asked(PairPrompt("a", "b")))
    with pytest.raises(InvalidRequest, match="does not rank"):
        embeds.require_possible(asked(PairPrompt("a", "b")))
    with pytest.raises(InvalidRequest, match="does not embed"):
        ranks.require_possible(asked(TextPrompt("a")))
    with pytest.raises(InvalidRequest, match="at most 8") as refused:
        embeds.require_possible(asked(TextPrompt("a"), dimensions=9))
    assert refused.value.param == "dimensions"


def test_a_model_that_only_embeds_says_which_route_to_use() -> None:
    require_generation(model_facts())
    with pytest.raises(InvalidRequest, match="/v1/embeddings"):
        require_generation(model_facts(generates=False))
