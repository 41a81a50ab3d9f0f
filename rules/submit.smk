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


rule submissions:
    input:
        SUBMISSIONS,
