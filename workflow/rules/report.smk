"""What people look at and share: loss curves of an era, model cards, the static site."""


report: "../report/workflow.rst"


# Where a run of an era stopped early, its last state is handed on to the end, so every run has one there.
rule era_losses:
    input:
        unpack(asked(last_states)),
    output:
        report(
            "losses/{era}.png",
            category="Loss curves",
            labels={"era": "{era}"},
            caption="../report/losses.rst",
        ),
    log:
        "logs/losses/{era}.log",
    wildcard_constraints:
        era=one_of(ERAS),
    params:
        spec=spec_of(spec_of_losses, "losses/{era}.png"),
    shell:
        verb("losses {wildcards.era} --output {output} 2> {log}")


rule losses:
    input:
        [f"losses/{era}.png" for era, members in ERAS.items() if any(run.counts for run in members)],


rule card:
    input:
        unpack(asked(lambda w: model_inputs("model", Reference(run=w.run)))),
        evaluation="evaluations/{run}/metrics.json",
    output:
        report(
            "results/{run}.md",
            category="Model cards",
            labels={"run": "{run}"},
            caption="../report/card.rst",
        ),
    log:
        "logs/card/{run}.log",
    params:
        spec=spec_of(spec_of_card, "results/{run}.md"),
    shell:
        verb("card {wildcards.run} 2> {log}")


# Of whatever is there: it builds nothing, and is made anew each time.
rule site:
    log:
        "logs/site.log",
    shell:
        verb("site 2> {log}")
