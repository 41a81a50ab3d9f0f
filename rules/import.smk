# Members that others trained: published checkpoints take the place of a training (published_weights).


rule import_member:
    input:
        checkpoint=published_checkpoint,
        recordings=training_recordings,
        split=SPLIT,
    output:
        record=f"{MEMBER}/run.json",
        weights=f"{MEMBER}/weights.safetensors",
        history=f"{MEMBER}/history.csv",
        learned=f"{MEMBER}/split.parquet",
    log:
        f"{LOGS}/import/{{training_set}}/{{system}}/{{member}}.log",
    wildcard_constraints:
        training_set=GUARD.pattern(imported=True),
    conda:
        "../envs/training.yaml"
    resources:
        mem_mb=memory(16000),
        runtime=minutes(30),
    params:
        fingerprint=lambda wildcards: GUARD.fingerprint(**wildcards),
    script:
        "../workflow_scripts/import_member.py"
