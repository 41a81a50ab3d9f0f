# Splits: which trial of which animal trains, selects or tests which member, written before training.


rule split:
    input:
        videos=VIDEOS,
    output:
        split=SPLIT,
    log:
        f"{LOGS}/split/{{training_set}}/{{system}}.log",
    benchmark:
        f"{BENCHMARKS}/split/{{training_set}}/{{system}}.tsv"
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=20,
    params:
        fingerprint=lambda wildcards: fingerprints.split(
            STUDY, wildcards.training_set, wildcards.system
        ),
    script:
        "../workflow_scripts/split.py"


rule splits:
    input:
        [
            SPLIT.format(training_set=training_set, system=system)
            for training_set, system in STUDY.trainings()
        ],
