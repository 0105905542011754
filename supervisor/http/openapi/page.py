"""A page of the API for people, made from its document. No scripts, no outside requests. Pure."""

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

Json = Mapping[str, Any]

STYLE = """
:root { color-scheme: light dark; --soft: color-mix(in srgb, currentColor 12%, transparent); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
nav a { margin-right: 1rem; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--soft); }
summary { cursor: pointer; padding: .4rem 0; }
summary b { display: inline-block; min-width: 4.5rem; }
code, pre { font: .9em ui-monospace, monospace; }
pre { background: var(--soft); padding: .8rem; overflow-x: auto; border-radius: .4rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .25rem .6rem .25rem 0; }
tr { border-bottom: 1px solid var(--soft); }
"""


def page(document: Json) -> str:
    """The page as HTML."""
    info = document["info"]
    groups: dict[str, list[tuple[str, str, Json]]] = {tag["name"]: [] for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            groups[operation["tags"][0]].append((method, path, operation))
    links = "".join(f'<a href="#{_anchor(name)}">{escape(name)}</a>' for name in groups)
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>gpufc API</title><style>{STYLE}</style></head><body><main>",
        f"<h1>gpufc {escape(info['version'])}</h1><p>{escape(info['summary'])}. ",
        'The same as a document: <a href="/openapi.json">/openapi.json</a>.</p>',
        f"<nav>{links}</nav>",
    ]
    for name, operations in groups.items():
        parts.append(f'<h2 id="{_anchor(name)}">{escape(name)}</h2>')
        parts += [_operation(document, *each) for each in operations]
    return "\n".join([*parts, "</main></body></html>\n"])


def _anchor(name: str) -> str:
    return escape(name.replace(" ", "-").lower(), quote=True)


def _operation(document: Json, method: str, path: str, operation: Json) -> str:
    parts = [
        f"<details><summary><b>{method.upper()}</b> <code>{escape(path)}</code> ",
        f"{escape(operation['summary'])}</summary>",
    ]
    media = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if media is not None:
        for example in media.get("examples", {}).values():
            body = json.dumps(example["value"], indent=2, ensure_ascii=False)
            parts.append(f"<pre>{escape(body)}</pre>")
        parts.append("<table><tr><th>field</th><th>type</th></tr>")
        parts += [
            f"<tr><td><code>{escape(name)}</code></td><td>{escape(kind)}</td></tr>"
            for name, kind in _fields(document, media["schema"])
        ]
        parts.append("</table>")
    return "".join([*parts, "</details>"])


def _fields(document: Json, schema: Json) -> Iterator[tuple[str, str]]:
    found = _resolved(document, schema)
    required = set(found.get("required", ()))
    for name, member in found.get("properties", {}).items():
        kind = _kind(document, member)
        yield name, f"{kind}, required" if name in required else kind


def _kind(document: Json, schema: Json) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema:
        return " or ".join(json.dumps(value) for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(document, each) for each in schema["anyOf"]))
    kind = str(schema.get("type", "anything"))
    if kind == "array" and isinstance(schema.get("items"), Mapping):
        return f"list of {_kind(document, schema['items'])}"
    bounds = [f"{sign} {schema[key]}" for key, sign in _BOUNDS if key in schema]
    return " ".join([kind, *bounds])


_BOUNDS = (
    ("exclusiveMinimum", ">"),
    ("minimum", "≥"),
    ("maximum", "≤"),
)


def _resolved(document: Json, schema: Json) -> Json:
    if "$ref" not in schema:
        return schema
    name = str(schema["$ref"]).rpartition("/")[2]
    found: Json = document["components"]["schemas"][name]
    return found
