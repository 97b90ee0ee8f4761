# The ensemble: groups of members trained together, then joined.
rule train_ensemble:
    input:
        dataset="results/{campaign}/iter_{iteration}/dataset.h5",
        previous=of_previous_if_any("ensemble.safetensors", CONFIG.training.warm_start),
    output:
        output="results/{campaign}/iter_{iteration}/members/group_{group}.safetensors",
        history="results/{campaign}/iter_{iteration}/members/history_{group}.csv",
    log:
        "results/{campaign}/logs/iter_{iteration}/train_ensemble_{group}.log",
    conda:
        "../../envs/dubito.yaml"
    threads: threads_of("train_ensemble", CONFIG)
    resources:
        mem_mb=REQUESTS.memory("train_ensemble", training_mb),
        runtime=REQUESTS.minutes("train_ensemble", training_minutes),
        gpu=gpus,
    params:
        stage=stage_version("train_ensemble"),
        model=section("model"),
        training=untracked(section("training")),
        # How often checkpoints are written and who trains beside whom leave the weights as they are.
        rerun_for=section_without(
            "training", "checkpoint_every_epochs", "members_per_job"
        ),
        allow_model_labels=CONFIG.data.allow_model_labels,
        members=members_of_group,
        seed=SEED,
        device=DEVICE,
        state="results/{campaign}/state/training/iter_{iteration}/group_{group}",
    message:
        "{wildcards.campaign}, iteration {wildcards.iteration}: train group {wildcards.group}"
    script:
        "../scripts/train_ensemble.py"


rule merge_ensemble:
    input:
        groups=members("group_{}.safetensors"),
        histories=members("history_{}.csv"),
    output:
        output="results/{campaign}/iter_{iteration}/ensemble.safetensors",
        history="results/{campaign}/iter_{iteration}/history.csv",
    log:
        "results/{campaign}/logs/iter_{iteration}/merge_ensemble.log",
    conda:
        "../../envs/dubito.yaml"
    threads: threads_of("merge_ensemble", CONFIG)
    resources:
        mem_mb=REQUESTS.memory("merge_ensemble", 2000),
        runtime=REQUESTS.minutes("merge_ensemble", 15),
    params:
        stage=stage_version("merge_ensemble"),
    message:
        "{wildcards.campaign}, iteration {wildcards.iteration}: join the members"
    script:
        "../scripts/merge_ensemble.py"
