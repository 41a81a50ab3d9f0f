# The mean of a system's members and their cross-moments, from which the score of any subset follows.


rule ensemble:
    input:
        predictions=of_members(PREDICTIONS),
        recordings=predicted_recordings,
        split=split_of,
        videos=VIDEOS,
    output:
        predictions=f"{ENSEMBLE}/predictions.h5",
        moments=f"{ENSEMBLE}/moments.h5",
    params:
        fingerprint=lambda wildcards: fingerprints.ensemble(
            STUDY, wildcards.protocol, wildcards.system
        ),
    log:
        f"{LOGS}/ensemble/{{protocol}}/{{system}}.log",
    benchmark:
        f"{BENCHMARKS}/ensemble/{{protocol}}/{{system}}.tsv"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=240,
    conda:
        "../envs/analysis.yaml"
    script:
        "../workflow_scripts/ensemble.py"


rule ensembles:
    input:
        expand(f"{ENSEMBLE}/moments.h5", protocol=PROTOCOLS, system=SYSTEMS),
