"""What other code or another lock made: reported and kept at full scale, made again where `--config rebuild=ID` asks for it.

Snakemake runs a job again when its spec changes, and the spec names code and lock. At full scale the spec of what is there
goes on naming those that made it, as the record beside it says.
"""

KEEPS_STALE = LEDGER.scale.protect_results
REBUILD = [name for name in str(config.get("rebuild", "")).split(",") if name]
STALE = []


def as_made(spec, artifact):
    """The spec with the code and lock that made the artifact, where a change of them is to restart nothing."""
    if KEEPS_STALE:
        check_reasons()
        if (spec["run"] if spec["verb"] == "evaluate" else stale.owner_of(artifact)) not in REBUILD:
            return spec | (stale.named(artifact) if "code" in spec else {})
    return spec


def check_reasons():
    """Refuses those of Snakemake's reasons that look at the text of rules and at lists of inputs."""
    reasons = {reason.name.lower() for reason in workflow.dag_settings.rerun_triggers} if workflow.dag_settings else set()
    if reasons & {"code", "input"}:
        raise WorkflowError(
            "Snakemake would run finished trainings again because their rules were written anew: expected the rerun triggers "
            f"mtime and params, found {', '.join(sorted(reasons))}. Use this program's profile (workflow/profiles/default), or say "
            "`--rerun-triggers mtime params`."
        )


if unknown := [name for name in REBUILD if not (name in LEDGER.runs or name in LEDGER.bases or name in LEDGER.datasets)]:
    raise WorkflowError(f"rebuild={','.join(REBUILD)}: {', '.join(unknown)} is no run, base or dataset of the ledger.")

if KEEPS_STALE and workflow.is_main_process:
    try:
        STALE = stale.find(Path("."), LOCK)
    except ValueError as error:
        raise WorkflowError(str(error))

for artifact in [found for found in STALE if found.owner in REBUILD]:
    artifact.path.chmod(artifact.path.stat().st_mode | 0o200)  # Snakemake refuses to replace what is write-protected

for line in stale.lines([found for found in STALE if found.owner not in REBUILD]):
    owner = line.partition(":")[0]
    logger.warning(
        f"Stale: {line} than those in use. It is kept as it is: `{program.typed('accept', owner, '--reason', '...')}` puts that on record, "
        f"`--config rebuild={owner}` makes it again."
    )
