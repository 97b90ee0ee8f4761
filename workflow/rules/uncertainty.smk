# The uncertainty methods, and what they say of candidates and of labelled structures.
rule fit_uncertainty:
    input:
        ensemble="results/{campaign}/iter_{iteration}/ensemble.safetensors",
        dataset="results/{campaign}/iter_{iteration}/dataset.h5",
    output:
        output="results/{campaign}/iter_{iteration}/uncertainty/{method}.safetensors",
        about="results/{campaign}/iter_{iteration}/uncertainty/{method}.json",
    log:
        "results/{campaign}/logs/iter_{iteration}/fit_uncertainty_{method}.log",
    conda:
        "../../envs/dubito.yaml"
    threads: threads_of("fit_uncertainty", CONFIG)
    resources:
        mem_mb=REQUESTS.memory("fit_uncertainty", fitting_mb),
        runtime=REQUESTS.minutes("fit_uncertainty", fitting_minutes),
        gpu=gpus,
    params:
        stage=stage_version("fit_uncertainty"),
        uncertainty=method_settings,
        role=role,
        device=DEVICE,
        seed=SEED,
    message:
        "{wildcards.campaign}, iteration {wildcards.iteration}: fit {wildcards.method}"
    script:
        "../scripts/fit_uncertainty.py"


rule score_candidates:
    input:
        ensemble=of_previous("ensemble.safetensors"),
        # As for exploring, which made the pool.
        uncertainty=ancient(of_previous("uncertainty/{method}.safetensors")),
        pool=pool,
        # What the cheap score is compared with.
        dataset=of_previous_if_any("dataset.h5", wanted=CONFIG.scoring.adaptive),
        # Where the acceptance window follows from it, and with it which scores matter.
        metrics=of_previous_if_any(
            "metrics.json",
            wanted=CONFIG.scoring.adaptive and CONFIG.selection.heeds_certificate,
        ),
    output:
        output="results/{campaign}/iter_{iteration}/scores/{method}.h5",
    log:
        "results/{campaign}/logs/iter_{iteration}/score_candidates_{method}.log",
    conda:
        "../../envs/dubito.yaml"
    threads: threads_of("score_candidates", CONFIG)
    resources:
        mem_mb=REQUESTS.memory("score_candidates", 4000),
        runtime=REQUESTS.minutes("score_candidates", work.scoring_minutes(CONFIG)),
        gpu=gpus,
    params:
        **ADAPTIVE_SCORING,
        stage=stage_version("score_candidates"),
        device=DEVICE,
    message:
        "{wildcards.campaign}, iteration {wildcards.iteration}: score the candidates with {wildcards.method}"
    script:
        "../scripts/score_candidates.py"


rule predict_structures:
    input:
        ensemble="results/{campaign}/iter_{iteration}/ensemble.safetensors",
        uncertainty=expand(
            "results/{{campaign}}/iter_{{iteration}}/uncertainty/{method}.safetensors",
            method=METHODS,
        ),
        # States of before, which have none of these beside them, can't be read: fitted anew.
        fits=expand(
            "results/{{campaign}}/iter_{{iteration}}/uncertainty/{method}.json",
            method=METHODS,
        ),
        inputs=predicted,
    output:
        outputs=expand(
            "results/{{campaign}}/iter_{{iteration}}/predictions/{name}.h5",
            name=PREDICTED,
        ),
    log:
        "results/{campaign}/logs/iter_{iteration}/predict_structures.log",
    conda:
        "../../envs/dubito.yaml"
    threads: threads_of("predict_structures", CONFIG)
    resources:
        mem_mb=REQUESTS.memory("predict_structures", fitting_mb),
        runtime=REQUESTS.minutes("predict_structures", fitting_minutes),
        gpu=gpus,
    params:
        stage=stage_version("predict_structures"),
        device=DEVICE,
        methods=METHODS,
    message:
        "{wildcards.campaign}, iteration {wildcards.iteration}: predict what is labelled"
    script:
        "../scripts/predict_structures.py"


# The batch as all methods saw it before it was labelled: what they are compared on. Nothing of the loop waits for it
# but the choice of the next driver, and the labels take longer.
rule predict_batch:
    input:
        ensemble=of_previous("ensemble.safetensors"),
        uncertainty=previous_states,
        selected="results/{campaign}/iter_{iteration}/selected.h5",
    output:
        output="results/{campaign}/iter_{iteration}/predictions/batch.h5",
    log:
        "results/{campaign}/logs/iter_{iteration}/predict_batch.log",
    conda:
        "../../envs/dubito.yaml"
    threads: threads_of("predict_batch", CONFIG)
    resources:
        mem_mb=REQUESTS.memory("predict_batch", 4000),
        runtime=REQUESTS.minutes("predict_batch", 60),
        gpu=gpus,
    params:
        stage=stage_version("predict_batch"),
        device=DEVICE,
        methods=METHODS,
    message:
        "{wildcards.campaign}, iteration {wildcards.iteration}: ask all methods about the batch"
    script:
        "../scripts/predict_batch.py"
