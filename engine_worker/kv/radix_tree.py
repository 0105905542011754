"""A compressed trie of token ids: which slots' tokens begin like a given list.

Pure data structure. Tokens lie in machine integers and are compared and copied by slices, so a
path of 100,000 tokens costs what its nodes cost, and those are few: one where two slots part or
one ends.
"""

import collections.abc
from array import array
from collections.abc import Iterator
from typing import TypeAlias

Tokens: TypeAlias = collections.abc.Sequence[int]
TokenArray: TypeAlias = "array[int]"


class _Node:
    """The tokens between its parent and itself, and every slot whose path goes through its end.

    `depth` is the number of tokens from the root to its end.
    """

    __slots__ = ("children", "depth", "edge", "parent", "slots")

    def __init__(
        self, parent: "_Node | None", edge: TokenArray, depth: int, slots: set[int]
    ) -> None:
        self.parent = parent
        self.edge = edge
        self.depth = depth
        self.slots = slots
        self.children: dict[int, _Node] = {}


class RadixTree:
    """Slots with a path of at least one token each.

    Invariant: a path ends at a node, never within an edge; but for the root, every node has a
    slot, and one with a single child has a slot whose path ends there. Token ids have 32 bits.
    """

    def __init__(self) -> None:
        self._root = _Node(None, array("i"), 0, set())
        self._ends: dict[int, _Node] = {}

    def __len__(self) -> int:
        return len(self._ends)

    def insert(self, slot: int, tokens: Tokens) -> None:
        """Give a path to a slot that has none. `tokens` must not be empty."""
        self._ends[slot] = self._append(self._root, slot, array("i", tokens))

    def extend(self, slot: int, tokens: Tokens) -> None:
        """Let a slot's path go on with `tokens`. Costs what they cost, however long the path."""
        if not tokens:
            return
        end, more = self._ends[slot], array("i", tokens)
        if not end.children and len(end.slots) == 1:
            end.edge.extend(more)
            end.depth += len(more)
            return
        self._ends[slot] = self._append(end, slot, more)
        self._merge(end)

    def remove(self, slot: int) -> None:
        """Forget a slot's path, and the nodes that were there for it alone."""
        lowest = self._ends.pop(slot)
        for node in _upwards(lowest):
            node.slots.discard(slot)
        while lowest.parent is not None and not lowest.slots:
            del lowest.parent.children[lowest.edge[0]]
            lowest = lowest.parent
        self._merge(lowest)

    def move(self, source: int, target: int) -> None:
        """The path of slot `source` is now that of `target`, which must have none."""
        self._ends[target] = self._ends.pop(source)
        for node in _upwards(self._ends[target]):
            node.slots.discard(source)
            node.slots.add(target)

    def longest(self, tokens: Tokens) -> tuple[int, frozenset[int]]:
        """How many of `tokens` some slot's path begins with, and all slots whose path does."""
        node, n_common = self._root, 0
        while (child := _next(node, tokens, n_common)) is not None:
            n_edge = _common_prefix(child.edge, tokens, n_common)
            node, n_common = child, n_common + n_edge
            if n_edge < len(child.edge):
                break
        return n_common, frozenset(node.slots) if n_common else frozenset()

    def ends_along(self, tokens: Tokens) -> Iterator[tuple[int, int]]:
        """(n_tokens, slot) of each path that is wholly a prefix of `tokens`, shortest first."""
        node, n_common = self._root, 0
        while (child := _next(node, tokens, n_common)) is not None:
            if _common_prefix(child.edge, tokens, n_common) < len(child.edge):
                return
            node, n_common = child, child.depth
            yield from ((n_common, slot) for slot in self._ending(node))

    def length(self, slot: int) -> int:
        """The number of tokens in a slot's path."""
        return self._ends[slot].depth

    def tokens(self, slot: int) -> TokenArray:
        """The tokens of a slot's path."""
        path = array("i")
        for node in reversed([*_upwards(self._ends[slot])]):
            path.extend(node.edge)
        return path

    def beyond(self, slot: int) -> frozenset[int]:
        """The other slots whose paths begin with all of this slot's path."""
        return frozenset(self._ends[slot].slots) - {slot}

    def _ending(self, node: _Node) -> list[int]:
        return sorted(slot for slot in node.slots if self._ends[slot] is node)

    def _append(self, node: _Node, slot: int, tokens: TokenArray) -> _Node:
        """Lead a slot's path on from the end of `node`; returns the node where it ends then."""
        node.slots.add(slot)
        n_done = 0
        while (child := _next(node, tokens, n_done)) is not None:
            n_common = _common_prefix(child.edge, tokens, n_done)
            if n_common < len(child.edge):
                child = _split(child, n_common)
            child.slots.add(slot)
            node, n_done = child, n_done + n_common
        if n_done == len(tokens):
            return node
        rest = tokens[n_done:]
        leaf = _Node(node, rest, node.depth + len(rest), {slot})
        node.children[rest[0]] = leaf
        return leaf

    def _merge(self, node: _Node) -> None:
        """Put a node together with its child if nothing parts or ends between them any more."""
        if node.parent is None or len(node.children) != 1:
            return
        (child,) = node.children.values()
        if len(child.slots) < len(node.slots):  # some path ends here
            return
        child.edge = node.edge + child.edge
        child.parent = node.parent
        node.parent.children[child.edge[0]] = child


def _upwards(node: _Node | None) -> Iterator[_Node]:
    while node is not None:
        yield node
        node = node.parent


def _next(node: _Node, tokens: Tokens, n_done: int) -> _Node | None:
    return node.children.get(tokens[n_done]) if n_done < len(tokens) else None


def _split(node: _Node, at: int) -> _Node:
    """Cut a node's edge in two; returns the new upper node."""
    parent = node.parent
    upper = _Node(parent, node.edge[:at], node.depth - len(node.edge) + at, set(node.slots))
    if parent is not None:
        parent.children[upper.edge[0]] = upper
    node.edge, node.parent = node.edge[at:], upper
    upper.children[node.edge[0]] = node
    return upper


def _common_prefix(edge: TokenArray, tokens: Tokens, start: int) -> int:
    """How much of `edge` stands in `tokens` at `start`."""
    return n_common(edge, array("i", tokens[start : start + len(edge)]))


def n_common(left: Tokens, right: Tokens) -> int:
    """Length of the common prefix of two sequences of one type: by bisection, since slices compare
    in C."""
    low, high = 0, min(len(left), len(right))
    if left[:high] == right[:high]:
        return high
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
