# Scores per neuron from the stored moments: of every member and of the ensemble.


rule evaluate:
    input:
        moments=of_members(MOMENTS),
        ensemble=f"{ENSEMBLE}/moments.h5",
    output:
        scores=SCORES,
    params:
        fingerprint=fingerprints.scores(),
    log:
        f"{LOGS}/evaluate/{{protocol}}/{{system}}.log",
    benchmark:
        f"{BENCHMARKS}/evaluate/{{protocol}}/{{system}}.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    conda:
        "../envs/analysis.yaml"
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
    params:
        fingerprint=fingerprints.achievable(STUDY),
    log:
        f"{LOGS}/achievable/{{protocol}}.log",
    benchmark:
        f"{BENCHMARKS}/achievable/{{protocol}}.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    conda:
        "../envs/analysis.yaml"
    script:
        "../workflow_scripts/achievable.py"


rule scores:
    input:
        expand(SCORES, protocol=PROTOCOLS, system=SYSTEMS),
