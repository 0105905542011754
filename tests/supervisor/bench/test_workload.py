"""The same workload asks the same everywhere; different requests ask different things."""

import ast
import itertools
import re
import subprocess
import sys

import msgspec
import pytest
from msgspec import structs

from supervisor.bench.words import WORDS
from supervisor.bench.workload import Workload, arrivals, conversation


def test_another_process_makes_the_same_requests() -> None:
    workload = Workload(prompt_tokens=9, shared_prefix=4, turns=2, seed=5)
    code = (
        "import msgspec; from supervisor.bench.workload import *\n"
        "w = Workload(prompt_tokens=9, shared_prefix=4, turns=2, seed=5)\n"
        "print(msgspec.json.encode(conversation(w, 3)).decode())"
    )
    there = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60,
        env={"PYTHONHASHSEED": "99", "PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert there.stdout.strip() == msgspec.json.encode(conversation(workload, 3)).decode()


@pytest.mark.parametrize("n_words", [3, 20])
def test_no_two_prompts_are_the_same_and_neighbours_differ_in_their_first_word(
    n_words: int,
) -> None:
    workload = Workload(prompt_tokens=n_words)
    texts = [conversation(workload, index).turns[0] for index in range(-5, 2000)]
    assert len(set(texts)) == len(texts)
    assert all(a.split()[0] != b.split()[0] for a, b in itertools.pairwise(texts))


def test_another_seed_asks_something_else() -> None:
    texts = {conversation(Workload(seed=seed), 0).turns[0] for seed in range(50)}
    prefixes = {conversation(Workload(seed=s, shared_prefix=30), 0).prefix for s in range(50)}
    assert (len(texts), len(prefixes)) == (50, 50)


@pytest.mark.parametrize("n_words", [1, 2, 8, 11, 128])
def test_texts_are_as_long_as_asked(n_words: int) -> None:
    workload = Workload(prompt_tokens=n_words, shared_prefix=7, turns=3)
    made = conversation(workload, 12)
    assert [len(text.split()) for text in made.turns] == [n_words] * 3
    assert len(made.prefix.split()) == 7


def test_answers_are_of_one_length_or_of_many_around_it() -> None:
    wanted = Workload(output_tokens=100)
    assert {conversation(wanted, index).output_tokens for index in range(50)} == {100}
    varied = structs.replace(wanted, varied=True)
    lengths = [conversation(varied, index).output_tokens for index in range(400)]
    assert min(lengths) >= 25
    assert max(lengths) <= 175
    assert len(set(lengths)) > 100
    assert 90 < sum(lengths) / len(lengths) < 110
    assert conversation(varied, 3).turns == conversation(wanted, 3).turns


def test_the_prefix_is_shared_and_only_that() -> None:
    workload = Workload(prompt_tokens=30, shared_prefix=20)
    one, two = conversation(workload, 0), conversation(workload, 1)
    assert one.prefix == two.prefix
    assert one.turns[0] != two.turns[0]


@pytest.mark.parametrize(("n_tokens", "n_methods"), [(1, 1), (120, 1), (250, 3), (500, 7)])
def test_code_to_be_copied_is_about_as_long_as_asked(n_tokens: int, n_methods: int) -> None:
    workload = Workload(prompt_tokens=n_tokens, copying=True)
    texts = [conversation(workload, index).turns[0] for index in range(200)]
    assert len({code(text).splitlines()[0] for text in texts}) == len(texts)
    assert {code(text).count("    def ") for text in texts} == {n_methods + 1}


def test_code_to_be_copied_is_code_and_has_the_name_that_is_to_be_changed() -> None:
    text = conversation(Workload(prompt_tokens=250, copying=True), 0).turns[0]
    ast.parse(code(text))
    old, new = re.findall("`(.*?)`", text.splitlines()[0])
    assert f"def {old}(" in text
    assert f"def {new}(" not in text


def code(text: str) -> str:
    return text.partition("```python\n")[2].removesuffix("```\n")


def test_arrivals_come_at_the_rate_and_not_in_step() -> None:
    workload = Workload(rate=5.0)
    times = list(itertools.islice(arrivals(workload), 4000))
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert times == list(itertools.islice(arrivals(workload), 4000))
    assert 4.5 < len(times) / times[-1] < 5.5
    # of a Poisson process: as many as e^-1 are longer than the mean
    assert 0.33 < sum(gap > 0.2 for gap in gaps) / len(gaps) < 0.41


def test_a_closed_loop_has_no_arrivals() -> None:
    with pytest.raises(ValueError, match="closed loop"):
        arrivals(Workload())


def test_words_are_distinct() -> None:
    assert len(set(WORDS)) == len(WORDS) > 300
