# The labels: one job, one process, one shard of structures. Each finished structure is kept in the cache,
# which is no output, because Snakemake deletes the outputs of a job that was killed.
rule label_structures:
    input:
        selected="results/{campaign}/iter_{iteration}/selected.h5",
        manifest="results/{campaign}/iter_{iteration}/selection.json",
        labelled=labelled_files,
    output:
        output="results/{campaign}/iter_{iteration}/labels/shard_{shard}.h5",
        report="results/{campaign}/iter_{iteration}/labels/shard_{shard}.json",
    log:
        "results/{campaign}/logs/iter_{iteration}/label_structures_{shard}.log",
    conda:
        "../../envs/dubito.yaml"
    threads: threads_of("label_structures", CONFIG)
    resources:
        mem_mb=REQUESTS.memory("label_structures", labelling_mb),
        runtime=REQUESTS.minutes("label_structures", labelling_minutes),
        gpu=label_gpus,
    params:
        stage=stage_version("label_structures"),
        structures_per_shard=shard_size,
        labelling=untracked(section("labelling", "labeller", "reuse_from", "checks")),
        rerun_for=LABELLER,
        cache="results/label_cache",
    message:
        "{wildcards.campaign}, iteration {wildcards.iteration}: label shard {wildcards.shard}"
    script:
        "../scripts/label_structures.py"
