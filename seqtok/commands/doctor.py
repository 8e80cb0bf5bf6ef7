"""seqtok doctor: what this machine has and lacks."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer


def doctor(
    network: Annotated[bool, typer.Option("--network", help="Let two processes meet, as torchrun's do.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Findings as JSON.")] = False,
) -> None:
    """Look at software, accelerators, memory, disk and network. Exit status 1 if there is a problem."""
    from seqtok.doctor import handshake, software, system
    from seqtok.doctor.finding import guarded

    checks = [*software.CHECKS, *system.CHECKS, *([handshake.network] if network else [])]
    findings = [finding for check in checks for finding in guarded(check)]
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            mark = {"ok": "ok     ", "warning": "warning", "problem": "PROBLEM"}[finding.state]
            typer.echo(f"{mark}  {finding.subject}: {finding.text}")
            if finding.way:
                typer.echo(f"         -> {finding.way}")
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)
