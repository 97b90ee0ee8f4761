# Structures to start from, the fixed test battery, and the growing dataset.
rule prepare_structures:
    input:
        initial_files,
    output:
        output="results/{campaign}/iter_000/candidates.h5",
    log:
        "results/{campaign}/logs/iter_000/prepare_structures.log",
    conda:
        "../../envs/dubito.yaml"
    threads: threads_of("prepare_structures", CONFIG)
    resources:
        mem_mb=REQUESTS.memory("prepare_structures", 1000),
        runtime=REQUESTS.minutes("prepare_structures", 15),
    params:
        stage=stage_version("prepare_structures"),
        data=section("data", "initial"),
        seed=SEED,
    message:
        "{wildcards.campaign}: prepare the structures to start from"
    script:
        "../scripts/prepare_structures.py"


# No iteration needs it before its evaluation, so it gives way to whatever else is ready.
rule prepare_reference:
    input:
        initial_files,
        labelled=labelled_files,
    output:
        output="results/{campaign}/reference/profile_{profile}.h5",
    log:
        "results/{campaign}/logs/prepare_reference_{profile}.log",
    priority: -10
    conda:
        "../../envs/dubito.yaml"
    threads: threads_of("prepare_reference", CONFIG)
    resources:
        mem_mb=REQUESTS.memory("prepare_reference", 2000),
        runtime=REQUESTS.minutes("prepare_reference", 240),
        gpu=label_gpus,
    params:
        stage=stage_version("prepare_reference"),
        profile=profile_settings,
        data=section("data", "initial"),
        labelling=untracked(section("labelling", "labeller", "checks")),
        rerun_for=LABELLER,
        cache="results/label_cache",
    message:
        "{wildcards.campaign}: label the profile {wildcards.profile}"
    script:
        "../scripts/prepare_reference.py"


rule prepare_test:
    input:
        files=CONFIG.evaluation.test_files,
    output:
        output="results/{campaign}/reference/test.h5",
    log:
        "results/{campaign}/logs/prepare_test.log",
    conda:
        "../../envs/dubito.yaml"
    threads: threads_of("prepare_test", CONFIG)
    resources:
        mem_mb=REQUESTS.memory("prepare_test", 2000),
        runtime=REQUESTS.minutes("prepare_test", 15),
    params:
        stage=stage_version("prepare_test"),
    message:
        "{wildcards.campaign}: read the test set"
    script:
        "../scripts/prepare_test.py"


rule build_dataset:
    input:
        previous=of_previous_if_any("dataset.h5"),
        manifest="results/{campaign}/iter_{iteration}/selection.json",
        shards=shards("h5"),
    output:
        output="results/{campaign}/iter_{iteration}/dataset.h5",
    log:
        "results/{campaign}/logs/iter_{iteration}/build_dataset.log",
    conda:
        "../../envs/dubito.yaml"
    threads: threads_of("build_dataset", CONFIG)
    resources:
        mem_mb=REQUESTS.memory("build_dataset", 2000),
        runtime=REQUESTS.minutes("build_dataset", 15),
    params:
        stage=stage_version("build_dataset"),
        data=section("data", "validation_fraction", "allow_model_labels"),
        seed=SEED,
    message:
        "{wildcards.campaign}, iteration {wildcards.iteration}: build the dataset"
    script:
        "../scripts/build_dataset.py"
