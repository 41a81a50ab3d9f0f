# Members. Recordings and splits are `ancient`: a member is trained again only when its fingerprint
# changes, and then only if the study says so (MemberGuard). The checkpoint is no output, because
# Snakemake deletes the outputs of a failed job and a retry must go on from it.


rule train:
    input:
        recordings=lambda wildcards: ancient(training_recordings(wildcards)),
        split=ancient(SPLIT),
    output:
        record=f"{MEMBER}/run.json",
        weights=f"{MEMBER}/weights.safetensors",
        history=f"{MEMBER}/history.csv",
    log:
        f"{LOGS}/train/{{training_set}}/{{system}}/{{member}}.log",
    benchmark:
        f"{BENCHMARKS}/train/{{training_set}}/{{system}}/{{member}}.tsv"
    conda:
        "../envs/training.yaml"
    threads: lambda wildcards: asked(wildcards.system, "cpus")
    resources:
        gpu=lambda wildcards: asked(wildcards.system, "gpus"),
        mem_mb=lambda wildcards, attempt: int(
            1000 * attempt * asked(wildcards.system, "memory_gb")
        ),
        runtime=lambda wildcards: int(60 * asked(wildcards.system, "runtime_hours")),
    params:
        fingerprint=lambda wildcards: GUARD.fingerprint(**wildcards),
        checkpoint=f"{MEMBER}.checkpoint",
    script:
        "../workflow_scripts/train.py"


rule members:
    input:
        all_members(),
