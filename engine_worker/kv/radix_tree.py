"""A compressed trie of token ids. It finds the slots with the longest prefix of a list. Pure.

Edges are arrays of machine integers, compared and copied by slices. So the cost of a long path
depends on its nodes, of which there is one where two slots' tokens part or one slot's tokens end.
"""

import collections.abc
from array import array
from collections.abc import Iterator
from typing import TypeAlias

Tokens: TypeAlias = collections.abc.Sequence[int]
TokenArray: TypeAlias = "array[int]"


class _Node:
    """The tokens from the parent to this node (`edge`), and all slots with a path through its end.

    `depth` is the number of tokens from the root to the end of the edge.
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
    """One path of at least one token for each slot in the tree.

    Invariants: a path ends at a node, never within an edge. Every node except the root has a slot,
    and a path ends there if the node has a single child. Token ids have 32 bits.
    """

    def __init__(self) -> None:
        self._root = _Node(None, array("i"), 0, set())
        self._ends: dict[int, _Node] = {}

    def __len__(self) -> int:
        return len(self._ends)

    def insert(self, slot: int, tokens: Tokens) -> None:
        """Add the path of a slot that has none. `tokens` must not be empty."""
        self._ends[slot] = self._append(self._root, slot, array("i", tokens))

    def extend(self, slot: int, tokens: Tokens) -> None:
        """Lengthen a slot's path by `tokens`, at a cost that does not depend on its length."""
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
        """Remove a slot's path and the nodes that no other path uses."""
        lowest = self._ends.pop(slot)
        for node in _upwards(lowest):
            node.slots.discard(slot)
        while lowest.parent is not None and not lowest.slots:
            del lowest.parent.children[lowest.edge[0]]
            lowest = lowest.parent
        self._merge(lowest)

    def move(self, source: int, target: int) -> None:
        """Give the path of `source` to `target`, a slot without a path."""
        self._ends[target] = self._ends.pop(source)
        for node in _upwards(self._ends[target]):
            node.slots.discard(source)
            node.slots.add(target)

    def prefixes(self, tokens: Tokens) -> Iterator[tuple[int, frozenset[int]]]:
        """Each slot with a common prefix with `tokens`: (length, slots), the longest first."""
        node, n_common = self._root, 0
        while (child := _next(node, tokens, n_common)) is not None:
            n_edge = _common_prefix(child.edge, tokens, n_common)
            node, n_common = child, n_common + n_edge
            if n_edge < len(child.edge):
                break
        seen: frozenset[int] = frozenset()
        while node.parent is not None:
            if slots := frozenset(node.slots) - seen:
                yield min(n_common, node.depth), slots
            seen, node = frozenset(node.slots), node.parent

    def ends_along(self, tokens: Tokens) -> Iterator[tuple[int, int]]:
        """(n_tokens, slot) of each path that is a prefix of `tokens`, the shortest first."""
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

    def n_shared(self, slot: int, tokens: Tokens) -> int:
        """The length of the prefix that a slot's path shares with `tokens`."""
        return _common_prefix(self.tokens(slot), tokens, 0)

    def beyond(self, slot: int) -> frozenset[int]:
        """The other slots with a path that begins with this slot's whole path."""
        return frozenset(self._ends[slot].slots) - {slot}

    def _ending(self, node: _Node) -> list[int]:
        return sorted(slot for slot in node.slots if self._ends[slot] is node)

    def _append(self, node: _Node, slot: int, tokens: TokenArray) -> _Node:
        """Continue a slot's path below `node` with `tokens`; returns the node of its new end."""
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
        """Join a node and its only child, unless a path ends at the node."""
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
    """Split a node's edge after `at` tokens; returns the new upper node."""
    parent = node.parent
    upper = _Node(parent, node.edge[:at], node.depth - len(node.edge) + at, set(node.slots))
    if parent is not None:
        parent.children[upper.edge[0]] = upper
    node.edge, node.parent = node.edge[at:], upper
    upper.children[node.edge[0]] = node
    return upper


def _common_prefix(edge: TokenArray, tokens: Tokens, start: int) -> int:
    """The length of the prefix that `edge` shares with `tokens[start:]`."""
    return n_common(edge, array("i", tokens[start : start + len(edge)]))


def n_common(left: Tokens, right: Tokens) -> int:
    """The length of the common prefix of two lists, or two arrays.

    A bisection over slices, since these compare in C and a loop over tokens does not.
    """
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
