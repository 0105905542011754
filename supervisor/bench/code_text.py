"""Prompts with new source code that ask for it again with one name changed. Pure.

The answer nearly copies the prompt, as in an edit of code or text. Prompt lookup drafts such
answers well.
"""

import random
from collections.abc import Sequence

from supervisor.bench.words import WORDS

METHOD_TOKENS = 62
FIXED_TOKENS = 60
"""Tokens of a method, and of the rest with the chat template, in common vocabularies."""

_WISH = """\
Write this class again, with its method `{old}` renamed to `{new}` and nothing else changed:

```python
{code}```
"""
_HEAD = """\
class {name}:
    def __init__(self):
        self.{noun}_list = []
"""
_METHOD = """
    def {verb}_{noun}(self, {noun}, {other}):
        if {noun} in self.{noun}_list:
            raise ValueError("{other} has a {noun}")
        self.{noun}_list.append({noun} + {other})
        return len(self.{noun}_list)
"""


def wish(first_words: Sequence[str], n_tokens: int, dice: random.Random) -> str:
    """A class with these words at the beginning of its name and one or more methods, about
    `n_tokens` long."""
    n_methods = max(1, round((n_tokens - FIXED_TOKENS) / METHOD_TOKENS))
    nouns = dice.sample(WORDS, k=n_methods + 1)
    verbs, others = dice.sample(WORDS, k=n_methods), dice.sample(WORDS, k=n_methods)
    code = _HEAD.format(name="".join(word.title() for word in first_words), noun=nouns[0])
    for noun, verb, other in zip(nouns, verbs, others, strict=False):
        code += _METHOD.format(noun=noun, verb=verb, other=other)
    old, new = f"{verbs[-1]}_{nouns[n_methods - 1]}", f"{nouns[-1]}_{nouns[n_methods - 1]}"
    return _WISH.format(old=old, new=new, code=code)
