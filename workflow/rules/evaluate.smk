"""Evaluations: pictures and numbers of a run's result, its base and their merges."""


rule evaluation:
    input:
        unpack(asked(evaluation_inputs)),
    output:
        report(
            "evaluations/{run}/index.html",
            category="Evaluations",
            labels={"run": "{run}", "what": "page"},
            caption="../report/evaluation.rst",
        ),
        metrics="evaluations/{run}/metrics.json",
        grid=report(
            "evaluations/{run}/grid.png",
            category="Evaluations",
            labels={"run": "{run}", "what": "grid"},
            caption="../report/evaluation.rst",
        ),
    log:
        "logs/evaluate/{run}.log",
    benchmark:
        "logs/evaluate/{run}.benchmark.jsonl"
    params:
        spec=spec_of(lambda w: SPECS.evaluation(w.run), "evaluations/{run}/index.html"),
    shell:
        "job evaluate --spec {params.spec:q} --log {log}"
        " --base '{input.base}' --trained {input.trained} --vocabulary $(dirname {input.vocabulary})"
        " --out evaluations/{wildcards.run}"
