# Figures of what was recorded, made from the recording stores before anything is trained.


rule draw_example_trial:
    input:
        recording=RECORDING.format(animal=STUDY.settings.animals[0]),
    output:
        pdf=FIGURE.format(figure="example_trial.pdf"),
        png=report(
            FIGURE.format(figure="example_trial.png"),
            caption="captions/example_trial.rst",
            category="Recordings",
            labels={"figure": "One trial"},
        ),
        caption=FIGURE.format(figure="example_trial.json"),
    log:
        f"{LOGS}/report/example_trial.log",
    benchmark:
        f"{BENCHMARKS}/report/example_trial.tsv"
    localrule: True
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        fingerprint=fingerprints.recording_figure(STUDY, "draw_example_trial"),
    script:
        "../workflow_scripts/draw_example_trial.py"


rule draw_stimuli:
    input:
        recordings=recordings_of(STUDY.settings.animals),
    output:
        pdf=FIGURE.format(figure="stimuli.pdf"),
        png=report(
            FIGURE.format(figure="stimuli.png"),
            caption="captions/stimuli.rst",
            category="Recordings",
            labels={"figure": "Stimuli"},
        ),
        caption=FIGURE.format(figure="stimuli.json"),
    log:
        f"{LOGS}/report/stimuli.log",
    benchmark:
        f"{BENCHMARKS}/report/stimuli.tsv"
    localrule: True
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        fingerprint=fingerprints.recording_figure(STUDY, "draw_stimuli"),
    script:
        "../workflow_scripts/draw_stimuli.py"


rule draw_composition:
    input:
        recordings=recordings_of(STUDY.settings.animals),
    output:
        pdf=FIGURE.format(figure="composition.pdf"),
        png=report(
            FIGURE.format(figure="composition.png"),
            caption="captions/composition.rst",
            category="Recordings",
            labels={"figure": "Composition"},
        ),
        caption=FIGURE.format(figure="composition.json"),
    log:
        f"{LOGS}/report/composition.log",
    benchmark:
        f"{BENCHMARKS}/report/composition.tsv"
    localrule: True
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        fingerprint=fingerprints.recording_figure(STUDY, "draw_composition"),
    script:
        "../workflow_scripts/draw_composition.py"
