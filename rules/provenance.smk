# Where every number comes from, and what it says of the published ones.


rule tabulate_lineage:
    input:
        weights=weights_of,
        recordings=recordings_of(STUDY.settings.animals),
    output:
        lineage=table_files("lineage_{training_set}", "Lineage", "Members"),
    log:
        f"{LOGS}/report/lineage_{{training_set}}.log",
    benchmark:
        f"{BENCHMARKS}/report/lineage_{{training_set}}.tsv"
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=minutes(60),
    params:
        fingerprint=REPORTING,
        titles=TITLES,
    script:
        "../workflow_scripts/tabulate_lineage.py"


# Receipts are read where they are: a store may outlive its own.
rule tabulate_receipts:
    input:
        recordings=recordings_of(STUDY.settings.animals),
    output:
        receipts=table_files("receipts", "Lineage", "Recordings"),
    log:
        f"{LOGS}/report/receipts.log",
    benchmark:
        f"{BENCHMARKS}/report/receipts.tsv"
    localrule: True
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        fingerprint=REPORTING,
        receipts=expand(RECEIPT, animal=STUDY.settings.animals),
    script:
        "../workflow_scripts/tabulate_receipts.py"


rule tabulate_reproduction:
    input:
        scores=expand(SCORES, protocol=PROTOCOLS, system=SYSTEMS),
        records=all_members,
    output:
        ledger=table_files("reproduction", "Reproduction", "Ledger"),
    log:
        f"{LOGS}/report/reproduction.log",
    benchmark:
        f"{BENCHMARKS}/report/reproduction.tsv"
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=minutes(60),
    params:
        fingerprint=REPORTING,
        titles=TITLES,
        published_as=PUBLISHED_AS,
    script:
        "../workflow_scripts/tabulate_reproduction.py"
