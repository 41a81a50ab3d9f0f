# The mean of a system's members, or of several systems, and the cross-moments from which the score of
# any subset follows.


rule ensemble:
    input:
        predictions=averaged_predictions,
        recordings=predicted_recordings,
        splits=splits_of_members,
        learned=learned_by_members,
    output:
        predictions=f"{ENSEMBLE}/predictions.h5",
        moments=f"{ENSEMBLE}/moments.h5",
        mean=f"{ENSEMBLE}/mean.h5",
    log:
        f"{LOGS}/ensemble/{{protocol}}/{{system}}.log",
    benchmark:
        f"{BENCHMARKS}/ensemble/{{protocol}}/{{system}}.tsv"
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=minutes(240),
    params:
        fingerprint=lambda wildcards: fingerprints.ensemble(
            STUDY, wildcards.protocol, wildcards.system
        ),
    script:
        "../workflow_scripts/ensemble.py"


rule ensembles:
    input:
        ensemble_files(f"{ENSEMBLE}/moments.h5"),
