# Predictions of one member for the animals and tiers of one protocol, and the sums behind its scores.
# Split and videos are `ancient`: another seed or animal rewrites them, but what they say of a member
# changes only with what its fingerprint holds.


rule predict:
    input:
        record=member_record,
        recordings=predicted_recordings,
        split=lambda wildcards: ancient(split_of(wildcards)),
        videos=ancient(VIDEOS),
    output:
        predictions=(
            PREDICTIONS if STUDY.settings.keep_predictions else temp(PREDICTIONS)
        ),
        moments=MOMENTS,
    log:
        f"{LOGS}/predict/{{protocol}}/{{system}}/{{member}}.log",
    benchmark:
        f"{BENCHMARKS}/predict/{{protocol}}/{{system}}/{{member}}.tsv"
    conda:
        "../envs/training.yaml"
    threads: lambda wildcards: asked(wildcards.system, "cpus")
    resources:
        gpu=lambda wildcards: asked(wildcards.system, "gpus"),
        mem_mb=lambda wildcards, attempt: int(
            1000 * attempt * asked(wildcards.system, "memory_gb")
        ),
        runtime=240,
    params:
        fingerprint=lambda wildcards: fingerprints.prediction(
            STUDY, wildcards.protocol, wildcards.system
        ),
    script:
        "../workflow_scripts/predict.py"
