# Zip files for the competition's server, each checked as the server would before it is there.


rule submit:
    input:
        predictions=f"{ENSEMBLE}/predictions.h5",
        recordings=predicted_recordings,
    output:
        upload=SUBMISSION,
    log:
        f"{LOGS}/submit/{{protocol}}/{{system}}/{{upload}}.log",
    benchmark:
        f"{BENCHMARKS}/submit/{{protocol}}/{{system}}/{{upload}}.tsv"
    wildcard_constraints:
        upload="|".join(UPLOADS),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(120),
    params:
        fingerprint=lambda wildcards: fingerprints.submission(STUDY, wildcards.protocol),
    script:
        "../workflow_scripts/submit.py"


# Simulation keeps the responses that it withholds, so a server can be emulated for its animals.
rule emulate_server:
    input:
        uploads=uploads_of_system,
        ensemble=f"{ENSEMBLE}/mean.h5",
        recordings=predicted_recordings,
        receipts=lambda wildcards: expand(
            RECEIPT, animal=STUDY.predicted_animals(wildcards.protocol)
        ),
    output:
        scores=SERVED,
    log:
        f"{LOGS}/emulate_server/{{protocol}}/{{system}}.log",
    benchmark:
        f"{BENCHMARKS}/emulate_server/{{protocol}}/{{system}}.tsv"
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(60),
    params:
        fingerprint=lambda wildcards: fingerprints.emulated_server(
            STUDY, wildcards.protocol
        ),
    script:
        "../workflow_scripts/emulate_server.py"


rule submissions:
    input:
        SUBMISSIONS,
