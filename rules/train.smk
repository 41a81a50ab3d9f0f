# Members. The rule knows only those that are to be trained: a finished member is a file like any
# other, which no newer input and no forced run replaces (MemberGuard). Inputs flagged `ancient` would
# not do: a job above them that runs hides every other reason to run what lies below.
# The checkpoint is no output, because Snakemake deletes the outputs of a failed job and a retry must
# go on from it.


rule train:
    input:
        recordings=training_recordings,
        split=SPLIT,
        teacher=teacher_files,
    output:
        record=f"{MEMBER}/run.json",
        weights=f"{MEMBER}/weights.safetensors",
        history=f"{MEMBER}/history.csv",
        learned=f"{MEMBER}/split.parquet",
        events=directory(f"{MEMBER}/events"),
    log:
        f"{LOGS}/train/{{training_set}}/{{system}}/{{member}}.log",
    benchmark:
        f"{BENCHMARKS}/train/{{training_set}}/{{system}}/{{member}}.tsv"
    wildcard_constraints:
        training_set=GUARD.pattern(),
    conda:
        "../envs/training.yaml"
    threads: member_cpus
    resources:
        gpu=member_gpus,
        gres=member_gres,
        mem_mb=member_memory,
        runtime=member_minutes,
    params:
        fingerprint=lambda wildcards: GUARD.fingerprint(**wildcards),
        checkpoint=f"{MEMBER}.checkpoint",
    script:
        "../workflow_scripts/train.py"


rule members:
    input:
        checked_members,
