"""Text of any origin, made fit for a log or a terminal."""


def printable(text: str) -> str:
    """`text` with every character escaped that would not be seen as itself, but the space."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )
