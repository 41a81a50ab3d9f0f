# Figures of scores beyond the leaderboard: by stimulus type, over neurons, over seeds.


rule draw_scores_by_type:
    input:
        scores=ranked_scores,
    output:
        pdf=FIGURE.format(figure="scores_by_type_{protocol}.pdf"),
        png=report(
            FIGURE.format(figure="scores_by_type_{protocol}.png"),
            caption="captions/scores_by_type.rst",
            category="Scores",
            labels={"figure": "By stimulus type", "protocol": "{protocol}"},
        ),
        caption=FIGURE.format(figure="scores_by_type_{protocol}.json"),
    log:
        f"{LOGS}/report/scores_by_type_{{protocol}}.log",
    benchmark:
        f"{BENCHMARKS}/report/scores_by_type_{{protocol}}.tsv"
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=minutes(20),
    params:
        fingerprint=REPORTING,
        titles=RANKED_TITLES,
    script:
        "../workflow_scripts/draw_scores_by_type.py"


rule draw_neuron_distribution:
    input:
        scores=ranked_scores,
    output:
        pdf=FIGURE.format(figure="neuron_distribution_{protocol}.pdf"),
        png=report(
            FIGURE.format(figure="neuron_distribution_{protocol}.png"),
            caption="captions/neuron_distribution.rst",
            category="Scores",
            labels={"figure": "Over neurons", "protocol": "{protocol}"},
        ),
        caption=FIGURE.format(figure="neuron_distribution_{protocol}.json"),
    log:
        f"{LOGS}/report/neuron_distribution_{{protocol}}.log",
    benchmark:
        f"{BENCHMARKS}/report/neuron_distribution_{{protocol}}.tsv"
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=minutes(20),
    params:
        fingerprint=REPORTING,
        titles=RANKED_TITLES,
    script:
        "../workflow_scripts/draw_neuron_distribution.py"


rule draw_reliability:
    input:
        scores=ranked_scores,
    output:
        pdf=FIGURE.format(figure="reliability_{protocol}.pdf"),
        png=report(
            FIGURE.format(figure="reliability_{protocol}.png"),
            caption="captions/reliability.rst",
            category="Scores",
            labels={"figure": "Against reliability", "protocol": "{protocol}"},
        ),
        caption=FIGURE.format(figure="reliability_{protocol}.json"),
    log:
        f"{LOGS}/report/reliability_{{protocol}}.log",
    benchmark:
        f"{BENCHMARKS}/report/reliability_{{protocol}}.tsv"
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=minutes(20),
    params:
        fingerprint=REPORTING,
        titles=RANKED_TITLES,
    script:
        "../workflow_scripts/draw_reliability.py"


rule draw_seed_stability:
    input:
        scores=protocol_scores,
    output:
        pdf=FIGURE.format(figure="seed_stability_{protocol}.pdf"),
        png=report(
            FIGURE.format(figure="seed_stability_{protocol}.png"),
            caption="captions/seed_stability.rst",
            category="Scores",
            labels={"figure": "Over seeds", "protocol": "{protocol}"},
        ),
        caption=FIGURE.format(figure="seed_stability_{protocol}.json"),
    log:
        f"{LOGS}/report/seed_stability_{{protocol}}.log",
    benchmark:
        f"{BENCHMARKS}/report/seed_stability_{{protocol}}.tsv"
    localrule: True
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=4000,
    params:
        fingerprint=REPORTING,
        titles=TITLES,
        published_as=PUBLISHED_AS,
    script:
        "../workflow_scripts/draw_seed_stability.py"


rule draw_paired_differences:
    input:
        comparisons=COMPARISONS,
    output:
        pdf=FIGURE.format(figure="paired_differences_{protocol}.pdf"),
        png=report(
            FIGURE.format(figure="paired_differences_{protocol}.png"),
            caption="captions/paired_differences.rst",
            category="Scores",
            labels={"figure": "Differences", "protocol": "{protocol}"},
        ),
        caption=FIGURE.format(figure="paired_differences_{protocol}.json"),
    log:
        f"{LOGS}/report/paired_differences_{{protocol}}.log",
    benchmark:
        f"{BENCHMARKS}/report/paired_differences_{{protocol}}.tsv"
    localrule: True
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=4000,
    params:
        fingerprint=REPORTING,
        titles=RANKED_TITLES,
    script:
        "../workflow_scripts/draw_paired_differences.py"


rule tabulate_seed_stability:
    input:
        scores=protocol_scores,
    output:
        seeds=table_files("seed_stability_{protocol}", "Scores", "Over seeds"),
    log:
        f"{LOGS}/report/table_seed_stability_{{protocol}}.log",
    benchmark:
        f"{BENCHMARKS}/report/table_seed_stability_{{protocol}}.tsv"
    localrule: True
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=4000,
    params:
        fingerprint=REPORTING,
        titles=TITLES,
        published_as=PUBLISHED_AS,
    script:
        "../workflow_scripts/tabulate_seed_stability.py"
