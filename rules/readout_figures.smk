# Where the neurons of trained networks look, read from the weights.


rule draw_readout_positions:
    input:
        weights=weights_of,
        recordings=recordings_of(STUDY.settings.animals),
    output:
        pdf=FIGURE.format(figure="readout_positions_{training_set}.pdf"),
        png=report(
            FIGURE.format(figure="readout_positions_{training_set}.png"),
            caption="captions/readout_positions.rst",
            category="Readouts",
            labels={"figure": "Positions", "training set": "{training_set}"},
        ),
        caption=FIGURE.format(figure="readout_positions_{training_set}.json"),
    log:
        f"{LOGS}/report/readout_positions_{{training_set}}.log",
    benchmark:
        f"{BENCHMARKS}/report/readout_positions_{{training_set}}.tsv"
    localrule: True
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        fingerprint=REPORTING,
        titles=TITLES,
    script:
        "../workflow_scripts/draw_readout_positions.py"


rule draw_retinotopy:
    input:
        weights=weights_of,
        recordings=recordings_of(STUDY.settings.animals),
    output:
        pdf=FIGURE.format(figure="retinotopy_{training_set}.pdf"),
        png=report(
            FIGURE.format(figure="retinotopy_{training_set}.png"),
            caption="captions/retinotopy.rst",
            category="Readouts",
            labels={"figure": "Retinotopy", "training set": "{training_set}"},
        ),
        caption=FIGURE.format(figure="retinotopy_{training_set}.json"),
    log:
        f"{LOGS}/report/retinotopy_{{training_set}}.log",
    benchmark:
        f"{BENCHMARKS}/report/retinotopy_{{training_set}}.tsv"
    localrule: True
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        fingerprint=REPORTING,
        titles=TITLES,
    script:
        "../workflow_scripts/draw_retinotopy.py"
