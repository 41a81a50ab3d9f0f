# Archives. The receipt is the output, never the archive: Snakemake deletes outputs of failed jobs,
# and nobody wants to fetch 15 GB twice.


rule simulate:
    output:
        receipt=RECEIPT,
    params:
        fingerprint=lambda wildcards: fingerprints.simulation(STUDY, wildcards.animal),
    wildcard_constraints:
        animal=animals_from("simulated"),
    log:
        f"{LOGS}/simulate/{{animal}}.log",
    benchmark:
        f"{BENCHMARKS}/simulate/{{animal}}.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=120,
    conda:
        "../envs/analysis.yaml"
    script:
        "../workflow_scripts/simulate.py"


rule locate:
    output:
        receipt=RECEIPT,
    params:
        source=lambda wildcards: STUDY.recording(wildcards.animal).source.model_dump(mode="json"),
    wildcard_constraints:
        animal=animals_from("directory", "gin"),
    log:
        f"{LOGS}/locate/{{animal}}.log",
    benchmark:
        f"{BENCHMARKS}/locate/{{animal}}.tsv"
    threads: 1
    resources:
        mem_mb=500,
        runtime=60,
    conda:
        "../envs/analysis.yaml"
    script:
        "../workflow_scripts/locate.py"
