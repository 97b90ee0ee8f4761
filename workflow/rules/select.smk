# What a batch may be chosen with, besides scores.
MEASURES_FEATURES = CONFIG.selection.features != "fingerprints"
HEEDS_CERTIFICATE = CONFIG.selection.heeds_certificate


# The batch. A checkpoint: how many shards are labelled depends on what is selected.
checkpoint select_batch:
    input:
        candidates=candidates,
        dataset=of_previous_if_any("dataset.h5"),
        # Only where they are asked for: campaigns of before selected without.
        ensemble=of_previous_if_any("ensemble.safetensors", MEASURES_FEATURES),
        metrics=of_previous_if_any("metrics.json", HEEDS_CERTIFICATE),
    output:
        selected="results/{campaign}/iter_{iteration}/selected.h5",
        manifest="results/{campaign}/iter_{iteration}/selection.json",
        rejected=report(
            "results/{campaign}/iter_{iteration}/rejected.csv",
            caption="../report/rejected.rst",
            category="Selection",
            labels={"iteration": "{iteration}"},
        ),
    log:
        "results/{campaign}/logs/iter_{iteration}/select_batch.log",
    conda:
        "../../envs/dubito.yaml"
    threads: threads_of("select_batch", CONFIG)
    resources:
        mem_mb=REQUESTS.memory("select_batch", selecting_mb),
        runtime=REQUESTS.minutes("select_batch", 30),
    params:
        stage=stage_version("select_batch"),
        # Risk and accepted share decide when to stop, not what to select.
        selection=section_without("selection", "risk", "min_accepted_fraction"),
        sanity=section("sampling")["sanity"],
        counts_electrons=untracked(CONFIG.labelling.labeller.kind == "pyscf"),
        method=driver_if_any,
        # Recorded by campaigns of before, which knew no other method: without it they would select anew.
        rerun_for="ensemble",
        structures_per_shard=untracked(CONFIG.labelling.structures_per_shard),
        places=label_places,
        fixed_s=label_fixed_s,
        remaining_labels=remaining_labels,
        seed=SEED,
    message:
        "{wildcards.campaign}, iteration {wildcards.iteration}: select what to label"
    script:
        "../scripts/select_batch.py"
