# Predictions of one member for the animals and tiers of one protocol, and the sums behind its scores.


rule predict:
    input:
        record=member_record,
        recordings=predicted_recordings,
        split=split_of,
        learned=learned_by_member,
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
        fingerprint=prediction_fingerprint,
    script:
        "../workflow_scripts/predict.py"
