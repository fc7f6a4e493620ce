"""What other code or another lock made: reported and kept at full scale, made again where `--config rebuild=ID` asks for it."""

REBUILD = [name for name in str(config.get("rebuild", "")).split(",") if name]
RESTARTING = ("MTIME", "PARAMS")


def planned(artifact):
    """Whether the ledger, as it is now, still has a stale artifact in its plan."""
    try:
        match artifact.path.parts:
            case ("states", run, name):
                return int(name.partition(".")[0]) in plan_of(LEDGER, LEDGER.run(run)).boundaries[1:]
            case ("results", name):
                return bool(SPECS.model(reference(name.removesuffix(".safetensors"))))
    except ValueError:
        return False
    return True


def make_again(found):
    """Has Snakemake make these artifacts, and lifts their write protection. What is made again is stale no more, so the same
    command goes on where it was interrupted."""
    for artifact in found:
        artifact.path.chmod(artifact.path.stat().st_mode | 0o200)
    workflow.dag_settings.forcerun = set(workflow.dag_settings.forcerun) | {str(artifact.path) for artifact in found}


if unknown := [name for name in REBUILD if not (name in LEDGER.runs or name in LEDGER.bases or name in LEDGER.datasets)]:
    raise WorkflowError(f"rebuild={','.join(REBUILD)}: {', '.join(unknown)} is no run, base or dataset of the ledger.")

if workflow.dag_settings and KEEPS_STALE:
    # Of Snakemake's reasons to run a job again these remain: another spec, or other content of an input. That a rule's shell
    # line or its list of inputs was written anew is no reason to train for 45 days.
    kept_reasons = {reason for reason in workflow.dag_settings.rerun_triggers if reason.name in RESTARTING}
    workflow.dag_settings.rerun_triggers = kept_reasons

if workflow.dag_settings and workflow.is_main_process and (KEEPS_STALE or REBUILD):
    try:
        STALE = stale.find(Path("."), LOCK)
    except ValueError as error:
        raise WorkflowError(str(error))
    make_again([artifact for artifact in STALE if artifact.owner in REBUILD and planned(artifact)])
    for line in stale.lines([artifact for artifact in STALE if artifact.owner not in REBUILD]) if KEEPS_STALE else ():
        owner = line.partition(":")[0]
        logger.warning(
            f"Stale: {line} than those in use. It is kept as it is: `astolfo accept {owner} --reason ...` puts that on record, "
            f"`--config rebuild={owner}` makes it again."
        )
