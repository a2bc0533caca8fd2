"""``hedgerow model``: list, show and roll back registered models."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hedgerow.server.cli.client import OperatorClient
from hedgerow.server.cli.options import Home, Json, Token, Url
from hedgerow.server.cli.output import print_json, print_table, run_app, say
from hedgerow.server.dashboard.formats import number, size, when
from hedgerow.shared.errors import ConfigError

app = typer.Typer(
    no_args_is_help=True,
    help="List, show and roll back models.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command("list", epilog="Example: hedgerow model list")
def list_models(home: Home = None, url: Url = None, token: Token = None, json: Json = False) -> int:
    """List registered versions, newest first."""
    found = OperatorClient.find(home, url, token).get("models")
    if json:
        print_json(found)
        return 0
    columns = ("model", "version", "aliases", "privacy", "ε", "artefacts", "registered", "manifest")
    print_table(columns, [_row(one) for one in found], "no model yet; a finished job registers one")
    return 0


@app.command(epilog="Example: hedgerow model show pump --version 2")
def show(
    model: str,
    version: Annotated[int | None, typer.Option(help="Which version (default: the champion).")] = None,
    home: Home = None, url: Url = None, token: Token = None, json: Json = False,
) -> int:  # fmt: skip
    """Show one version: lineage, gate, scores, privacy."""
    found = OperatorClient.find(home, url, token).get("models")
    one = _pick(found, model, version)
    if json:
        print_json(one)
        return 0
    say(f"{one['model']} version {one['version']} {' '.join(one['aliases'])}".rstrip())
    say(f"  manifest  {one['manifest_sha256']}")
    say(f"  from      job {one['job_id']}, recipe {one['recipe']}")
    epsilon = (
        "none (ε = ∞)"
        if one["epsilon"] is None
        else f"ε {number(one['epsilon'])}, δ {number(one['delta'], 2)}"
    )
    say(f"  privacy   {one['privacy_mode']}: {epsilon}")
    for file, runtime, precision, n_bytes in one["artefacts"]:
        say(f"  artefact  {file}: {runtime} {precision}, {size(n_bytes)}")
    for name, passed, value, limit in one["gate"]:
        say(
            f"  gate      {'passed' if passed else 'FAILED'} {name}: {number(value, 4)} (limit {number(limit, 4)})"
        )
    for name, value in one["scores"].items():
        say(f"  score     {name} {number(value, 4)}")
    return 0


@app.command(epilog="Example: hedgerow model rollback pump")
def rollback(model: str, home: Home = None, url: Url = None, token: Token = None, json: Json = False) -> int:
    """Send every device back to the model's previous version."""
    answer = OperatorClient.find(home, url, token).post(f"models/{model}/rollback")
    print_json(answer) if json else say(
        f"rollout {answer['rollout_id']} sends {model} back to its previous version"
    )
    return 0


def main(arguments: list[str]) -> int:
    """Run ``hedgerow model``."""
    return run_app(app, "model", arguments)


def _pick(found: list[dict[str, Any]], model: str, version: int | None) -> dict[str, Any]:
    ours = [one for one in found if one["model"] == model]
    if not ours:
        raise ConfigError(
            f"no model {model!r}; there are {', '.join(sorted({one['model'] for one in found})) or 'none'}"
        )
    chosen = [one for one in ours if (one["version"] == version if version else "champion" in one["aliases"])]
    if not chosen:
        raise ConfigError(
            f"{model} has versions {', '.join(str(one['version']) for one in ours)}, not {version or 'a champion'}"
        )
    return chosen[0]


def _row(one: dict[str, Any]) -> list[str]:
    artefacts = ", ".join(f"{runtime} {precision} {size(n)}" for _, runtime, precision, n in one["artefacts"])
    epsilon = "∞" if one["epsilon"] is None else number(one["epsilon"])
    return [
        one["model"],
        str(one["version"]),
        " ".join(one["aliases"]),
        one["privacy_mode"],
        epsilon,
        artefacts,
        when(one["registered_us"]),
        one["manifest_sha256"][:12],
    ]
