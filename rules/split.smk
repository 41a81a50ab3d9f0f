# Splits: which trial of which animal trains, selects or tests a member, written before any training.
# One file per member, so that another seed or animal leaves those of all others as they are.


rule split:
    input:
        recordings=training_recordings,
    output:
        split=SPLIT,
    log:
        f"{LOGS}/split/{{training_set}}/{{system}}/{{member}}.log",
    benchmark:
        f"{BENCHMARKS}/split/{{training_set}}/{{system}}/{{member}}.tsv"
    localrule: True
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        fingerprint=lambda wildcards: fingerprints.split(
            STUDY, wildcards.training_set, wildcards.system, wildcards.member
        ),
    script:
        "../workflow_scripts/split.py"


rule splits:
    input:
        [
            SPLIT.format(training_set=training_set, system=system, member=member)
            for training_set, system in STUDY.trainings()
            for member in STUDY.members(system)
        ],
