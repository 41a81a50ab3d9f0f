# Figures, tables and the page. Each figure is a target of its own:
#   snakemake results/report/figures/leaderboard_open.pdf

FIGURES = [
    *expand("leaderboard_{protocol}", protocol=PROTOCOLS),
    *expand("ensemble_size_{protocol}", protocol=PROTOCOLS if ENSEMBLES else []),
    *expand("paired_differences_{protocol}", protocol=PROTOCOLS),
    *expand("scores_by_type_{protocol}", protocol=PROTOCOLS),
    *expand("neuron_distribution_{protocol}", protocol=PROTOCOLS),
    *expand("reliability_{protocol}", protocol=PROTOCOLS),
    *expand("seed_stability_{protocol}", protocol=PROTOCOLS),
    *expand("traces_{protocol}", protocol=PROTOCOLS),
    *expand("training_curves_{training_set}", training_set=TRAINING_SETS),
    *expand("readout_positions_{training_set}", training_set=LEARNED_SETS),
    *expand("retinotopy_{training_set}", training_set=LEARNED_SETS),
    "example_trial",
    "stimuli",
    "composition",
    *expand("quality_{animal}", animal=STUDY.settings.animals),
]
TABLES = [
    *expand("leaderboard_{protocol}", protocol=PROTOCOLS),
    *expand("members_{protocol}", protocol=PROTOCOLS),
    *expand("seed_stability_{protocol}", protocol=PROTOCOLS),
    *expand("training_cost_{training_set}", training_set=TRAINING_SETS),
    *expand("leakage_{protocol}", protocol=PROTOCOLS),
    *expand("submissions_{protocol}", protocol=SUBMITTED),
    "shared_videos",
    "reproduction",
    *expand("lineage_{training_set}", training_set=LEARNED_SETS),
    "receipts",
]


rule draw_leaderboard:
    input:
        scores=ranked_scores,
        intervals=INTERVALS,
        joint=joint_moments,
        achievable=achievable_of,
        served=served_of,
    output:
        pdf=FIGURE.format(figure="leaderboard_{protocol}.pdf"),
        png=report(
            FIGURE.format(figure="leaderboard_{protocol}.png"),
            caption="captions/leaderboard.rst",
            category="Scores",
            labels={"figure": "Leaderboard", "protocol": "{protocol}"},
        ),
        caption=FIGURE.format(figure="leaderboard_{protocol}.json"),
    log:
        f"{LOGS}/report/leaderboard_{{protocol}}.log",
    benchmark:
        f"{BENCHMARKS}/report/leaderboard_{{protocol}}.tsv"
    localrule: True
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=4000,
    params:
        fingerprint=REPORTING,
        titles=RANKED_TITLES,
        published_as=PUBLISHED_AS,
    script:
        "../workflow_scripts/draw_leaderboard.py"


rule draw_ensemble_size:
    input:
        moments=ensembles_with_sizes,
    output:
        pdf=FIGURE.format(figure="ensemble_size_{protocol}.pdf"),
        png=report(
            FIGURE.format(figure="ensemble_size_{protocol}.png"),
            caption="captions/ensemble_size.rst",
            category="Scores",
            labels={"figure": "Ensemble size", "protocol": "{protocol}"},
        ),
        caption=FIGURE.format(figure="ensemble_size_{protocol}.json"),
    log:
        f"{LOGS}/report/ensemble_size_{{protocol}}.log",
    benchmark:
        f"{BENCHMARKS}/report/ensemble_size_{{protocol}}.tsv"
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=minutes(60),
    params:
        fingerprint=REPORTING,
        titles=TITLES,
    script:
        "../workflow_scripts/draw_ensemble_size.py"


rule draw_traces:
    input:
        recordings=predicted_recordings,
        predictions=expand(
            f"{ENSEMBLE}/predictions.h5", system=SYSTEMS, allow_missing=True
        ),
        scores=protocol_scores,
        splits=protocol_splits,
        learned=protocol_learned,
    output:
        pdf=FIGURE.format(figure="traces_{protocol}.pdf"),
        png=report(
            FIGURE.format(figure="traces_{protocol}.png"),
            caption="captions/traces.rst",
            category="Scores",
            labels={"figure": "Traces", "protocol": "{protocol}"},
        ),
        caption=FIGURE.format(figure="traces_{protocol}.json"),
    log:
        f"{LOGS}/report/traces_{{protocol}}.log",
    benchmark:
        f"{BENCHMARKS}/report/traces_{{protocol}}.tsv"
    localrule: True
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=4000,
    params:
        fingerprint=REPORTING,
        titles=TITLES,
    script:
        "../workflow_scripts/draw_traces.py"


rule draw_training_curves:
    input:
        histories=histories_of,
    output:
        pdf=FIGURE.format(figure="training_curves_{training_set}.pdf"),
        png=report(
            FIGURE.format(figure="training_curves_{training_set}.png"),
            caption="captions/training_curves.rst",
            category="Training",
            labels={"figure": "Curves", "training set": "{training_set}"},
        ),
        caption=FIGURE.format(figure="training_curves_{training_set}.json"),
    log:
        f"{LOGS}/report/training_curves_{{training_set}}.log",
    benchmark:
        f"{BENCHMARKS}/report/training_curves_{{training_set}}.tsv"
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
        "../workflow_scripts/draw_training_curves.py"


rule tabulate_scores:
    input:
        scores=ranked_scores,
        intervals=INTERVALS,
        joint=joint_moments,
        further=further_scores,
        records=protocol_records,
    output:
        leaderboard=table_files("leaderboard_{protocol}", "Scores", "Leaderboard"),
        members=table_files("members_{protocol}", "Scores", "Members"),
    log:
        f"{LOGS}/report/scores_{{protocol}}.log",
    benchmark:
        f"{BENCHMARKS}/report/scores_{{protocol}}.tsv"
    localrule: True
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=4000,
    params:
        fingerprint=REPORTING,
        titles=RANKED_TITLES,
        published_as=PUBLISHED_AS,
    script:
        "../workflow_scripts/tabulate_scores.py"


rule tabulate_submissions:
    input:
        uploads=uploads_of_protocol,
        served=served_of,
    output:
        submissions=table_files("submissions_{protocol}", "Scores", "Submissions"),
    log:
        f"{LOGS}/report/submissions_{{protocol}}.log",
    benchmark:
        f"{BENCHMARKS}/report/submissions_{{protocol}}.tsv"
    localrule: True
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        fingerprint=REPORTING,
        titles=RANKED_TITLES,
        published_as=PUBLISHED_AS,
    script:
        "../workflow_scripts/tabulate_submissions.py"


rule tabulate_training_cost:
    input:
        records=records_of,
        histories=histories_of,
    output:
        cost=table_files("training_cost_{training_set}", "Training", "Cost"),
    log:
        f"{LOGS}/report/training_cost_{{training_set}}.log",
    benchmark:
        f"{BENCHMARKS}/report/training_cost_{{training_set}}.tsv"
    localrule: True
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        fingerprint=REPORTING,
        titles=TITLES,
        published_as=PUBLISHED_AS,
    script:
        "../workflow_scripts/tabulate_training_cost.py"


rule draw_quality:
    input:
        recording=RECORDING,
    output:
        pdf=FIGURE.format(figure="quality_{animal}.pdf"),
        png=report(
            FIGURE.format(figure="quality_{animal}.png"),
            caption="captions/quality.rst",
            category="Recordings",
            labels={"figure": "Quality sheet", "animal": "{animal}"},
        ),
        caption=FIGURE.format(figure="quality_{animal}.json"),
    log:
        f"{LOGS}/report/quality_{{animal}}.log",
    benchmark:
        f"{BENCHMARKS}/report/quality_{{animal}}.tsv"
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(60),
    params:
        fingerprint=lambda wildcards: fingerprints.quality(STUDY, wildcards.animal),
    script:
        "../workflow_scripts/draw_quality.py"


rule tabulate_shared_videos:
    input:
        videos=VIDEOS,
    output:
        shared=table_files("shared_videos", "Leakage", "Shared videos"),
    log:
        f"{LOGS}/report/shared_videos.log",
    benchmark:
        f"{BENCHMARKS}/report/shared_videos.tsv"
    localrule: True
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        fingerprint=REPORTING,
        study=fingerprints.summary(STUDY),
    script:
        "../workflow_scripts/tabulate_shared_videos.py"


rule tabulate_leakage:
    input:
        splits=protocol_splits,
        learned=learned_otherwise,
    output:
        leakage=table_files("leakage_{protocol}", "Leakage", "Left out"),
    log:
        f"{LOGS}/report/leakage_{{protocol}}.log",
    benchmark:
        f"{BENCHMARKS}/report/leakage_{{protocol}}.tsv"
    localrule: True
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        fingerprint=REPORTING,
        study=fingerprints.summary(STUDY),
        titles=TITLES,
    script:
        "../workflow_scripts/tabulate_leakage.py"


rule page:
    input:
        figures=expand(FIGURE, figure=[f"{name}.png" for name in FIGURES]),
        captions=expand(FIGURE, figure=[f"{name}.json" for name in FIGURES]),
        tables=expand(TABLE, table=[f"{name}.json" for name in TABLES]),
        records=all_members,
    output:
        page=report(
            f"{RESULTS}/report.html",
            caption="captions/page.rst",
            category="The study's own report",
            labels={"page": "report.html"},
        ),
    log:
        f"{LOGS}/report/page.log",
    benchmark:
        f"{BENCHMARKS}/report/page.tsv"
    localrule: True
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        fingerprint=REPORTING,
        study=fingerprints.summary(STUDY),
        titles=TITLES,
    script:
        "../workflow_scripts/page.py"


rule figures:
    input:
        expand(FIGURE, figure=[f"{name}.pdf" for name in FIGURES]),


rule tables:
    input:
        expand(TABLE, table=[f"{name}.csv" for name in TABLES]),


rule report:
    input:
        rules.page.output,
