"""What people look at and share: loss curves of an era, model cards, the static site."""


report: "../report/workflow.rst"


rule era_losses:
    input:
        unpack(inputs(GRAPH.losses_inputs)),
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
        era=one_of(GRAPH.eras),
    params:
        spec=spec_of(GRAPH.era_losses, "losses/{era}.png"),
    shell:
        verb("losses {wildcards.era} --output {output} 2> {log}")


rule losses:
    input:
        GRAPH.losses(),


rule card:
    input:
        unpack(inputs(GRAPH.card_inputs)),
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
        spec=spec_of(GRAPH.card, "results/{run}.md"),
    shell:
        verb("card {wildcards.run} 2> {log}")


# Of whatever is there: it builds nothing, and is made anew each time.
rule site:
    log:
        "logs/site.log",
    shell:
        verb("site 2> {log}")
