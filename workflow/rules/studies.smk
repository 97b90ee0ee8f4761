# Studies: not part of any campaign. `snakemake --cores 1 study_label_savings` computes what is missing and compares;
# other settings and data: `--config settings=FILE data_folder=FOLDER folder=RESULTS`.
import sys

from dubito.core.errors import DubitoError
from dubito.core.progress import announce
from dubito.workflow.study import Study

try:
    STUDY = Study(config)
    CELLS = STUDY.cells()
except DubitoError as error:
    announce(f"dubito: {error}")
    sys.exit(error.exit_code)
if workflow.is_main_process:
    for reason in STUDY.skipped():
        announce(f"dubito: {reason}")


wildcard_constraints:
    pool="|".join(STUDY.settings.pools),
    selector="|".join(STUDY.settings.all_selectors()),
    seed=r"\d+",


localrules:
    study_label_savings,
    study_label_savings_summary,


# What the repository shows is made of the summary, in seconds, whenever this is asked for.
rule study_label_savings:
    default_target: True
    input:
        f"{STUDY.folder}/summary.json",
    params:
        folder=str(STUDY.folder),
        settings=str(STUDY.settings_file),
        data=str(STUDY.data),
    shell:
        "if [ -f benchmarks/label_savings.py ]; then"
        " python benchmarks/label_savings.py --folder {params.folder:q} --settings {params.settings:q}"
        " --data {params.data:q};"
        " python benchmarks/tables.py --write; fi"


rule study_label_savings_summary:
    input:
        [cell.path(STUDY.folder) for cell in CELLS],
    output:
        f"{STUDY.folder}/summary.json",
    log:
        f"{STUDY.folder}/logs/summary.log",
    conda:
        "../../envs/dubito.yaml"
    params:
        part="summary",
    script:
        "../scripts/study.py"


# A campaign of one selector from one initial set.
rule study_label_savings_cell:
    input:
        lambda wildcards: STUDY.needs(wildcards.pool),
    output:
        f"{STUDY.folder}/cells/{{pool}}/{{selector}}/{{seed}}.json",
    log:
        f"{STUDY.folder}/logs/{{pool}}_{{selector}}_{{seed}}.log",
    conda:
        "../../envs/dubito.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        part="cell",
        key=lambda wildcards: STUDY.key(wildcards.pool),
    script:
        "../scripts/study.py"


# About a second each; those that are there are kept, whatever happens to the job.
rule study_label_savings_ammonia:
    output:
        str(STUDY.ammonia),
    log:
        f"{STUDY.folder}/logs/ammonia.log",
    conda:
        "../../envs/dubito.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=120,
    params:
        part="ammonia",
        cache="results/label_cache",
        settings=STUDY.settings.ammonia_key(),
    script:
        "../scripts/study.py"
