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
        gpu=member_gpus,
        gres=member_gres,
        mem_mb=member_memory,
        runtime=minutes(240),
    params:
        fingerprint=prediction_fingerprint,
    script:
        "../workflow_scripts/predict.py"
