# Candidates: found with the model of the iteration before.
rule explore_structures:
    input:
        ensemble=of_previous("ensemble.safetensors"),
        # A new version of dubito fits it anew, which is no reason to explore and label again: its settings are.
        uncertainty=ancient(driver_state),
        dataset=of_previous("dataset.h5"),
    output:
        output="results/{campaign}/iter_{iteration}/pool/job_{job}.h5",
    log:
        "results/{campaign}/logs/iter_{iteration}/explore_structures_{job}.log",
    conda:
        "../../envs/dubito.yaml"
    threads: threads_of("explore_structures", CONFIG)
    resources:
        mem_mb=REQUESTS.memory("explore_structures", 4000),
        runtime=REQUESTS.minutes("explore_structures", work.exploring_minutes(CONFIG)),
        gpu=gpus,
    params:
        stage=stage_version("explore_structures"),
        method=driver,
        rerun_for=driver_settings,
        sampling=sampler_settings,
        seed=SEED,
        device=DEVICE,
    message:
        "{wildcards.campaign}, iteration {wildcards.iteration}: explore, job {wildcards.job}"
    script:
        "../scripts/explore_structures.py"
