"""A gap is written as llama-server writes it, and never read from the texts around it."""

from pathlib import Path

import pytest

from engine_worker.backend.fake.vocabulary import BOS, tokenize
from engine_worker.backend.port import InfillTokens
from engine_worker.prompts.infill import infill_tokens
from gpufc.errors import InvalidRequest
from gpufc.protocol import ContextFile, InfillPrompt, Tokens
from tests.engine_worker.prompts.vocabularies import load_vocabulary, write_vocabulary

PREFIX, SUFFIX, MIDDLE, REPOSITORY, FILE = 261, 262, 263, 264, 265
PLAIN = InfillTokens(PREFIX, SUFFIX, MIDDLE)
GAP = (BOS, PREFIX, *b"a", SUFFIX, *b"b", MIDDLE)
NOTES = (ContextFile("notes.py", "x"), ContextFile("more.py", "y"))


def tokens_of(prompt: InfillPrompt, ids: InfillTokens | None) -> Tokens:
    return infill_tokens(prompt, ids, (BOS,), lambda text: tokenize(text, parse_special=False))


def test_the_answer_begins_after_both_sides_of_the_gap() -> None:
    assert tokens_of(InfillPrompt("a", "b"), PLAIN) == GAP
    assert tokens_of(InfillPrompt("", ""), PLAIN) == (BOS, PREFIX, SUFFIX, MIDDLE)


def test_files_stand_before_the_gap_under_their_names() -> None:
    ids = InfillTokens(PREFIX, SUFFIX, MIDDLE, REPOSITORY, FILE)
    assert tokens_of(InfillPrompt("a", "b", NOTES), ids) == (
        *(REPOSITORY, *b"myproject\n"),
        *(FILE, *b"notes.py\n", *b"x"),
        *(FILE, *b"more.py\n", *b"y"),
        *(FILE, *b"filename\n"),
        *GAP,
    )


def test_a_model_without_tokens_for_files_gets_them_as_snippets() -> None:
    snippet = b"\n\n--- snippet ---\n\n"
    found = tokens_of(InfillPrompt("a", "b", NOTES), PLAIN)
    assert found == (*snippet, *b"x", *snippet, *b"y", *GAP)


def test_a_fill_in_token_that_is_spelt_in_the_code_stays_text() -> None:
    found = tokens_of(InfillPrompt("<|fim_middle|>", ""), PLAIN)
    assert found == (BOS, PREFIX, *b"<|fim_middle|>", SUFFIX, MIDDLE)


def test_a_model_that_cannot_fill_a_gap_refuses_it_by_the_client_s_field() -> None:
    with pytest.raises(InvalidRequest, match="fill-in-the-middle") as caught:
        tokens_of(InfillPrompt("a", "b", param="input_suffix"), None)
    assert caught.value.param == "input_suffix"


@pytest.mark.model
def test_the_tokens_are_those_of_the_model_s_file(model_path: Path, tmp_path: Path) -> None:
    names = ("pre", "suf", "mid", "rep", "sep")
    added = {f"fim_{name}_token_id": token for token, name in enumerate(names, 5)}
    path = write_vocabulary(model_path, tmp_path / "infill.gguf", added=added)
    assert load_vocabulary(path).special_tokens().infill == InfillTokens(5, 6, 7, 8, 9)
    plain = write_vocabulary(model_path, tmp_path / "plain.gguf")
    assert load_vocabulary(plain).special_tokens().infill is None
