"""Evaluations: pictures and numbers of a run's result, its base and their merges, or of its checkpoints."""


rule evaluation:
    input:
        unpack(inputs(GRAPH.evaluation_inputs)),
    output:
        report(
            "evaluations/{evaluation}/index.html",
            category="Evaluations",
            labels={"evaluation": "{evaluation}", "what": "page"},
            caption="../report/evaluation.rst",
        ),
        metrics="evaluations/{evaluation}/metrics.json",
        grid=report(
            "evaluations/{evaluation}/grid.png",
            category="Evaluations",
            labels={"evaluation": "{evaluation}", "what": "grid"},
            caption="../report/evaluation.rst",
        ),
    log:
        "logs/evaluate/{evaluation}.log",
    benchmark:
        "logs/evaluate/{evaluation}.benchmark.jsonl"
    threads: 2
    resources:
        gpu=1 if GRAPH.device == "cuda" else 0,
        others=of(GRAPH.evaluation_options),
    params:
        spec=spec_of(GRAPH.evaluation, "evaluations/{evaluation}/index.html"),
    shell:
        job(
            "evaluate --spec {params.spec:q} --log {log}"
            " --base '{input.base}' --trained {input.trained} --vocabulary $(dirname {input.vocabulary})"
            " {resources.others} --processes {threads}"
            " --out evaluations/{wildcards.evaluation}",
            device=True,
        )
