# Scores per neuron from the stored moments: of every member and of the ensemble.


rule evaluate:
    input:
        moments=of_members(MOMENTS),
        ensemble=f"{ENSEMBLE}/moments.h5",
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
        mem_mb=4000,
        runtime=60,
    params:
        fingerprint=fingerprints.scores(),
    script:
        "../workflow_scripts/evaluate.py"


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
        mem_mb=4000,
        runtime=60,
    params:
        fingerprint=lambda wildcards: fingerprints.achievable(STUDY, wildcards.protocol),
    script:
        "../workflow_scripts/achievable.py"


rule scores:
    input:
        expand(SCORES, protocol=PROTOCOLS, system=SYSTEMS),
