# Recording stores: trials straight from the archive, checked, at 30 Hz, one file per animal.


rule preprocess:
    input:
        receipt=RECEIPT,
    output:
        store=RECORDING,
    log:
        f"{LOGS}/preprocess/{{animal}}.log",
    benchmark:
        f"{BENCHMARKS}/preprocess/{{animal}}.tsv"
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(240),
    params:
        fingerprint=store_fingerprint,
    script:
        "../workflow_scripts/preprocess.py"


rule videos:
    input:
        stores=recordings_of(STUDY.settings.animals),
    output:
        videos=VIDEOS,
    log:
        f"{LOGS}/videos.log",
    benchmark:
        f"{BENCHMARKS}/videos.tsv"
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=minutes(20),
    params:
        fingerprint=fingerprints.videos(),
    script:
        "../workflow_scripts/videos.py"


rule recordings:
    input:
        rules.videos.input,
        rules.videos.output,
        expand(
            FIGURE,
            figure=expand("quality_{animal}.pdf", animal=STUDY.settings.animals),
        ),
