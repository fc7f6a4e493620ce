"""What other code or another lock made: reported and kept at full scale, made again where `--config rebuild=ID` asks for it.

Snakemake runs a job again when its spec changes, and the spec names code and lock. At full scale the spec of what is there
goes on naming those that it named before, as the job's record says, or else Snakemake's own metadata.
"""


def check_triggers():
    """Refuses those of Snakemake's reasons to run a job again that would restart what is kept."""
    try:
        triggers = workflow.dag_settings.rerun_triggers if workflow.dag_settings else ()
        GRAPH.check_triggers(trigger.name.lower() for trigger in triggers)
    except ValueError as error:
        raise WorkflowError(str(error))


if workflow.is_main_process:
    try:
        again, said = GRAPH.stale()
    except ValueError as error:
        raise WorkflowError(str(error))
    for artifact in again:
        artifact.path.chmod(artifact.path.stat().st_mode | 0o200)  # Snakemake refuses to replace what is write-protected
    for line in said:
        logger.warning(line)
