"""The tree finds the same as a comparison with every path, with no superfluous node."""

from array import array

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine_worker.kv.radix_tree import RadixTree, _Node

SLOTS = st.integers(0, 7)
TOKENS = st.lists(st.integers(0, 2), max_size=8)
"""Few tokens and short paths, so that many paths share prefixes or end within each other."""


def common_prefix(left: list[int], right: list[int]) -> int:
    pairs = zip(left, right, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


class TreeAgainstLists(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.tree = RadixTree()
        self.paths: dict[int, list[int]] = {}

    @rule(slot=SLOTS, tokens=TOKENS.filter(bool))
    def insert(self, slot: int, tokens: list[int]) -> None:
        if slot in self.paths:
            self.tree.remove(slot)
        self.tree.insert(slot, tokens)
        self.paths[slot] = tokens

    @precondition(lambda self: self.paths)
    @rule(data=st.data(), tokens=TOKENS)
    def extend(self, data: st.DataObject, tokens: list[int]) -> None:
        slot = data.draw(st.sampled_from(sorted(self.paths)))
        self.tree.extend(slot, tokens)
        self.paths[slot] = self.paths[slot] + tokens

    @precondition(lambda self: self.paths)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.paths)))
        self.tree.remove(slot)
        del self.paths[slot]

    @precondition(lambda self: self.paths)
    @rule(data=st.data(), to=SLOTS)
    def move(self, data: st.DataObject, to: int) -> None:
        source = data.draw(st.sampled_from(sorted(self.paths)))
        if to not in self.paths:
            self.tree.move(source, to)
            self.paths[to] = self.paths.pop(source)

    @rule(tokens=TOKENS)
    def prefixes(self, tokens: list[int]) -> None:
        by_length: dict[int, set[int]] = {}
        for slot, path in self.paths.items():
            by_length.setdefault(common_prefix(path, tokens), set()).add(slot)
            assert self.tree.n_shared(slot, tokens) == common_prefix(path, tokens)
        by_length.pop(0, None)
        assert list(self.tree.prefixes(tokens)) == sorted(by_length.items(), reverse=True)

    @rule(tokens=TOKENS)
    def ends_along(self, tokens: list[int]) -> None:
        expected = [
            (len(path), slot) for slot, path in self.paths.items() if tokens[: len(path)] == path
        ]
        assert list(self.tree.ends_along(tokens)) == sorted(expected)

    @invariant()
    def paths_are_as_they_were_given(self) -> None:
        assert len(self.tree) == len(self.paths)
        for slot, path in self.paths.items():
            assert self.tree.tokens(slot) == array("i", path)
            assert self.tree.length(slot) == len(path)
            beyond = {
                other
                for other, longer in self.paths.items()
                if other != slot and longer[: len(path)] == path
            }
            assert self.tree.beyond(slot) == beyond

    @invariant()
    def every_node_is_needed(self) -> None:
        self._check(self.tree._root, 0)

    def _check(self, node: _Node, above: int) -> None:
        ending = {slot for slot in node.slots if self.tree._ends[slot] is node}
        within = [slot for child in node.children.values() for slot in child.slots]
        assert node.depth == above + len(node.edge)
        assert node.slots == ending | set(within)
        assert len(within) == len(set(within))
        if node.parent is not None:
            assert node.edge
            assert ending or len(node.children) > 1
        for first, child in node.children.items():
            assert child.edge[0] == first
            assert child.parent is node
            self._check(child, node.depth)


TestTreeAgainstLists = TreeAgainstLists.TestCase
TestTreeAgainstLists.settings = settings(stateful_step_count=40)


def test_a_path_that_grows_alone_stays_one_node() -> None:
    tree = RadixTree()
    tree.insert(0, range(100))
    for start in range(100, 1000, 100):
        tree.extend(0, range(start, start + 100))
    assert list(tree.prefixes(range(2000))) == [(1000, {0})]
    assert len(tree._root.children) == 1
    assert not tree._ends[0].children


def test_a_path_that_follows_another_one_in_chunks_shares_its_nodes() -> None:
    tree = RadixTree()
    tree.insert(0, range(1000))
    tree.insert(1, range(100))
    for start in range(100, 1000, 100):
        tree.extend(1, range(start, start + 100))
    assert tree._ends[1] is tree._ends[0]
    assert list(tree.prefixes(range(2000))) == [(1000, {0, 1})]
