# What the model of an iteration is worth, and whether to go on.
rule evaluate:
    input:
        dataset="results/{campaign}/iter_{iteration}/dataset.h5",
        selected="results/{campaign}/iter_{iteration}/selected.h5",
        shards=shards("h5"),
        shard_reports=shards("json"),
        manifest="results/{campaign}/iter_{iteration}/selection.json",
        predictions="results/{campaign}/iter_{iteration}/predictions/dataset.h5",
        profiles=predicted_profiles,
        test=predicted_test,
    output:
        output=report(
            "results/{campaign}/iter_{iteration}/metrics.json",
            caption="../report/metrics.rst",
            category="Errors",
            labels={"iteration": "{iteration}"},
        ),
    log:
        "results/{campaign}/logs/iter_{iteration}/evaluate.log",
    conda:
        "../../envs/dubito.yaml"
    threads: threads_of("evaluate", CONFIG)
    resources:
        mem_mb=growing(2000),
        runtime=growing(15),
    params:
        stage=stage_version("evaluate"),
        method=METHOD,
        selection=section("selection", "force_tolerance_ev_per_angstrom", "risk"),
    message:
        "{wildcards.campaign}, iteration {wildcards.iteration}: measure the model"
    script:
        "../scripts/evaluate.py"


checkpoint decide:
    input:
        metrics=so_far("metrics.json"),
        manifests=so_far("selection.json"),
    output:
        output="results/{campaign}/iter_{iteration}/decision.json",
    log:
        "results/{campaign}/logs/iter_{iteration}/decide.log",
    conda:
        "../../envs/dubito.yaml"
    threads: threads_of("decide", CONFIG)
    resources:
        mem_mb=growing(1000),
        runtime=growing(15),
    params:
        stage=stage_version("decide"),
        campaign=section("campaign"),
        selection=section("selection"),
        labelling=section("labelling", "max_failed_fraction"),
    message:
        "{wildcards.campaign}, iteration {wildcards.iteration}: decide whether to go on"
    script:
        "../scripts/decide.py"
