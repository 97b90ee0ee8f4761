# One page for each iteration and the final one. The first also refresh report/index.html and summary.json, so
# that they can be read while the campaign runs, dated 1970 lest Snakemake take them for the final ones.
rule write_report:
    input:
        so_far("metrics.json"),
        so_far("decision.json"),
        so_far("history.csv"),
        doubts,
    output:
        output="results/{campaign}/iter_{iteration}/report.html",
        summary="results/{campaign}/iter_{iteration}/summary.json",
    log:
        "results/{campaign}/logs/iter_{iteration}/write_report.log",
    priority: 5
    conda:
        "../../envs/dubito.yaml"
    threads: threads_of("write_report", CONFIG)
    resources:
        mem_mb=REQUESTS.memory("write_report", 2000),
        runtime=REQUESTS.minutes("write_report", 15),
    params:
        stage=stage_version("write_report"),
        folder="results/{campaign}",
        config=REPORTED,
        final=False,
    message:
        "{wildcards.campaign}, iteration {wildcards.iteration}: write the report"
    script:
        "../scripts/write_report.py"


rule publish_report:
    input:
        ready=reports_so_far,
        every=all_reports,
    output:
        output=report(
            "results/{campaign}/report/index.html",
            caption="../report/campaign.rst",
            category="Campaign",
        ),
        summary="results/{campaign}/summary.json",
    log:
        "results/{campaign}/logs/publish_report.log",
    conda:
        "../../envs/dubito.yaml"
    threads: threads_of("publish_report", CONFIG)
    resources:
        mem_mb=REQUESTS.memory("publish_report", 2000),
        runtime=REQUESTS.minutes("publish_report", 15),
    params:
        stage=stage_version("write_report"),
        folder="results/{campaign}",
        iteration=last_iteration,
        config=REPORTED,
        final=True,
    message:
        "{wildcards.campaign}: write the final report"
    script:
        "../scripts/publish_report.py"
