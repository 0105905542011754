"""`models inspect` and `models rm`: model files, whether or not a front runs."""

import json
from pathlib import Path
from typing import Any

import click

from supervisor.cli.options import config_option, resolve, setting_options


@click.command("inspect", short_help="Show a model file: header, template, needs.")
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@config_option
@setting_options(["models_dir", "n_ctx"])
def inspect_command(
    model: str, as_json: bool, config_file: str | None, **flags: str | None
) -> None:
    """Show what is in the file MODEL, or the downloaded model of that name: its header, its chat
    template, what it needs, and whether it fits here. Its weights are not loaded.

    The exit code is 2 if llama.cpp cannot load the file.
    """
    from supervisor.cli.model_file import check, located

    config = resolve(flags, config_file).config
    path = check(located(model, config.downloads_folder), "MODEL")
    n_ctx = next(iter(config.models.values())).n_ctx
    report = probed(path, n_ctx)
    found = described(path, report["model"], report, n_ctx)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for line in lines(found):
        click.echo(line)


@click.command("rm", short_help="Delete downloaded models.")
@click.argument("names", nargs=-1, required=True, metavar="NAME [NAME…]")
@config_option
@setting_options(["models_dir"])
def remove_command(names: tuple[str, ...], config_file: str | None, **flags: str | None) -> None:
    """Delete downloaded models by NAME, all parts of a split one, and cut downloads.

    A front that serves one goes on with it until its worker is replaced. Only files in the folder
    of models can be deleted.
    """
    from supervisor.cli.terminal import amount
    from supervisor.downloads.folder import remove

    place = resolve(flags, config_file).config.downloads_folder
    for name in names:
        click.echo(f"{name}: {amount(remove(name, place))} freed")


def probed(path: Path, n_ctx: int) -> dict[str, Any]:
    """The probe's report of a model file. Raises `ConfigError` if llama.cpp cannot load it."""
    from gpufc.config import ModelConfig
    from gpufc.errors import ConfigError
    from supervisor.cli.doctor import probe

    report = probe(ModelConfig(model_path=str(path), n_ctx=n_ctx))
    facts = report.get("model")
    if facts is None:
        raise ConfigError(f"{path} could not be inspected: {report['llama_cpp'].get('error')}")
    if "error" in facts:
        raise ConfigError(facts["error"])
    return report


def described(path: Path, facts: dict[str, Any], report: dict[str, Any], n_ctx: int) -> Any:
    """The document of `inspect --json`. `n_ctx` tokens of context are counted in."""
    cells = min(n_ctx, facts["n_ctx_train"] or n_ctx)
    needed = facts["file_bytes"] + cells * facts["cell_bytes"]
    return {
        "file": str(path),
        "architecture": facts["architecture"],
        "name": facts["name"],
        "purpose": facts["purpose"],
        "quantization": facts["quantization"],
        "n_parts": facts["n_parts"],
        "n_tensors": facts["n_tensors"],
        "file_bytes": facts["file_bytes"],
        "n_ctx_train": facts["n_ctx_train"],
        "n_ctx": cells,
        "context_bytes": cells * facts["cell_bytes"],
        "needed_bytes": needed,
        "available_bytes": report["available_bytes"],
        "fits": needed <= report["available_bytes"],
        "chat_template": facts["chat_template"],
        "template_error": facts.get("template_error", ""),
        "metadata": facts["metadata"],
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The document for people."""
    from supervisor.cli.terminal import amount

    parts = f" in {found['n_parts']} parts" if found["n_parts"] > 1 else ""
    template = found["chat_template"]
    first = template.strip().splitlines()[0][:60] if template.strip() else "none"
    fits = "it fits" if found["fits"] else "it does not fit"
    error = f" ({found['template_error']})" if found["template_error"] else ""
    rows = [
        ("file", f"{found['file']} ({amount(found['file_bytes'])}{parts})"),
        ("model", f"{found['name'] or '-'}, {found['architecture']}, {found['quantization']}"),
        ("purpose", found["purpose"]),
        ("context", f"{found['n_ctx_train']:,} tokens at most"),
        ("template", f"{len(template):,} characters: {first}{error}"),
        (
            "needs",
            f"{amount(found['needed_bytes'])} with {found['n_ctx']:,} tokens of context; "
            f"{amount(found['available_bytes'])} of memory are free: {fits}",
        ),
    ]
    metadata = [f"  {key} = {value!r:.80}" for key, value in found["metadata"].items()]
    return [*(f"{name:<10}{text}" for name, text in rows), "header", *metadata]
