# Scores per neuron from the stored moments, of every member and of the ensemble; their uncertainty.


rule ceilings:
    input:
        recordings=predicted_recordings,
    output:
        ceilings=CEILINGS,
    log:
        f"{LOGS}/ceilings/{{protocol}}.log",
    benchmark:
        f"{BENCHMARKS}/ceilings/{{protocol}}.tsv"
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(60),
    params:
        fingerprint=lambda wildcards: fingerprints.ceilings(STUDY, wildcards.protocol),
    script:
        "../workflow_scripts/ceilings.py"


rule evaluate:
    input:
        moments=of_members(MOMENTS),
        ensemble=f"{ENSEMBLE}/mean.h5",
        ceilings=CEILINGS,
    output:
        scores=SCORES,
    log:
        f"{LOGS}/evaluate/{{protocol}}/{{system}}.log",
    benchmark:
        f"{BENCHMARKS}/evaluate/{{protocol}}/{{system}}.tsv"
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(60),
    params:
        fingerprint=fingerprints.scores(STUDY),
    script:
        "../workflow_scripts/evaluate.py"


rule evaluate_in_unit:
    input:
        moments=of_members(MOMENTS),
        ensemble=f"{ENSEMBLE}/mean.h5",
    output:
        scores=SCORES_IN_UNIT,
    log:
        f"{LOGS}/evaluate/{{protocol}}/{{system}}.{{unit}}.log",
    benchmark:
        f"{BENCHMARKS}/evaluate/{{protocol}}/{{system}}.{{unit}}.tsv"
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(60),
    params:
        fingerprint=fingerprints.scores(STUDY),
    script:
        "../workflow_scripts/evaluate_in_unit.py"


rule uncertainty:
    input:
        ensembles=means,
        members=protocol_moments,
    output:
        intervals=INTERVALS,
        comparisons=COMPARISONS,
    log:
        f"{LOGS}/uncertainty/{{protocol}}.log",
    benchmark:
        f"{BENCHMARKS}/uncertainty/{{protocol}}.tsv"
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(120),
    params:
        fingerprint=fingerprints.uncertainty(STUDY),
    script:
        "../workflow_scripts/uncertainty.py"


rule achievable:
    input:
        recordings=predicted_recordings,
        receipts=lambda wildcards: expand(
            RECEIPT, animal=STUDY.predicted_animals(wildcards.protocol)
        ),
    output:
        scores=ACHIEVABLE,
    log:
        f"{LOGS}/achievable/{{protocol}}.log",
    benchmark:
        f"{BENCHMARKS}/achievable/{{protocol}}.tsv"
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(60),
    params:
        fingerprint=lambda wildcards: fingerprints.achievable(STUDY, wildcards.protocol),
    script:
        "../workflow_scripts/achievable.py"


rule scores:
    input:
        ALL_SCORES,
        expand(INTERVALS, protocol=PROTOCOLS),
        expand(COMPARISONS, protocol=PROTOCOLS),
