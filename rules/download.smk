# Archives. The receipt is the output, never the archive: Snakemake deletes outputs of failed jobs,
# and nobody wants to fetch 15 GB twice.


rule simulate:
    output:
        receipt=RECEIPT,
    log:
        f"{LOGS}/simulate/{{animal}}.log",
    benchmark:
        f"{BENCHMARKS}/simulate/{{animal}}.tsv"
    wildcard_constraints:
        animal=animals_from("simulated"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(120),
    params:
        fingerprint=lambda wildcards: fingerprints.simulation(STUDY, wildcards.animal),
    script:
        "../workflow_scripts/simulate.py"


# On the login node, two at a time (profiles/default): nothing else of the workflow uses the network.
rule download:
    output:
        receipt=RECEIPT,
    log:
        f"{LOGS}/download/{{animal}}.log",
    benchmark:
        f"{BENCHMARKS}/download/{{animal}}.tsv"
    wildcard_constraints:
        animal=animals_from("gin"),
    localrule: True
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=500,
        downloads=1,
    params:
        archive=archive_path,
        state=archive_state,
    script:
        "../workflow_scripts/download.py"


rule locate:
    output:
        receipt=RECEIPT,
    log:
        f"{LOGS}/locate/{{animal}}.log",
    benchmark:
        f"{BENCHMARKS}/locate/{{animal}}.tsv"
    wildcard_constraints:
        animal=animals_from("directory", "native"),
    localrule: True
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=500,
    params:
        state=archive_state,
    script:
        "../workflow_scripts/locate.py"
