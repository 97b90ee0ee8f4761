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
        batch=judged_batch,
        fits=previous_fits,
        # What the control slice of the iteration before said is judged on this one.
        previous=of_previous_if_any(
            "metrics.json", config["selection"]["control_fraction"] > 0
        ),
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
        mem_mb=REQUESTS.memory("evaluate", 2000),
        runtime=REQUESTS.minutes("evaluate", 15),
    params:
        stage=stage_version("evaluate"),
        method=FIRST_DRIVER,
        selection=section(
            "selection",
            "force_tolerance_ev_per_angstrom",
            "risk",
            "min_accepted_fraction",
        ),
        seed=SEED,
    message:
        "{wildcards.campaign}, iteration {wildcards.iteration}: measure the model"
    script:
        "../scripts/evaluate.py"


# Which method drives the next iteration. A checkpoint of its own, apart from `decide`: what that depends on (budget,
# risk) must not touch what was explored. Only where the configuration leaves the choice open.
checkpoint choose_driver:
    input:
        dataset="results/{campaign}/iter_{iteration}/dataset.h5",
        batches=batches_to_judge,
        fits=fits_of_candidates,
        previous=of_previous_if_any("driver.json"),
    output:
        output="results/{campaign}/iter_{iteration}/driver.json",
    log:
        "results/{campaign}/logs/iter_{iteration}/choose_driver.log",
    conda:
        "../../envs/dubito.yaml"
    threads: threads_of("choose_driver", CONFIG)
    resources:
        mem_mb=REQUESTS.memory("choose_driver", 2000),
        runtime=REQUESTS.minutes("choose_driver", 15),
    params:
        stage=stage_version("choose_driver"),
        auto=config["uncertainty"]["auto"],
        candidates=CONFIG.uncertainty.candidates,
        seed=SEED,
    message:
        "{wildcards.campaign}, iteration {wildcards.iteration}: choose the method that drives next"
    script:
        "../scripts/choose_driver.py"


checkpoint decide:
    input:
        metrics=so_far("metrics.json"),
        manifests=so_far("selection.json"),
        shard_reports=shard_reports_so_far,
        driver=driver_file,
    output:
        output="results/{campaign}/iter_{iteration}/decision.json",
    log:
        "results/{campaign}/logs/iter_{iteration}/decide.log",
    conda:
        "../../envs/dubito.yaml"
    threads: threads_of("decide", CONFIG)
    resources:
        mem_mb=REQUESTS.memory("decide", 1000),
        runtime=REQUESTS.minutes("decide", 15),
    params:
        stage=stage_version("decide"),
        method=CONFIG.uncertainty.acquire_with,
        campaign=section("campaign"),
        selection=section("selection"),
        labelling=section("labelling", "max_failed_fraction"),
        planning=section("planning"),
    message:
        "{wildcards.campaign}, iteration {wildcards.iteration}: decide whether to go on"
    script:
        "../scripts/decide.py"
