"""Regular expressions of a schema, as the compiler reads them right. Pure."""


def enforceable(pattern: str) -> str:
    """The pattern with U+0001 excluded from every negated class.

    llguidance 1.9 lets the escapes of a JSON string through a negated class that excludes `"` or
    the backslash, unless the class excludes a control character too.
    """
    made: list[str] = []
    in_class, at = False, 0
    while at < len(pattern):
        character = pattern[at]
        if character == "\\":
            made.append(pattern[at : at + 2])
            at += 2
            continue
        made.append(character)
        at += 1
        if in_class:
            in_class = character != "]"
        elif character == "[":
            in_class = True
            if pattern[at : at + 1] == "^":
                made.append("^\\x01")
                at += 1
    return "".join(made)
