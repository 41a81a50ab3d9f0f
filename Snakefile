# The SENSORIUM study, from archives to report. DAG: rules/; settings: config.yaml; work: the package.
#
#   snakemake --cores 2 all --configfile config/demo.yaml      on a laptop, with simulated recordings
#   snakemake --profile slurm all                              the whole study on a cluster

from snakemake.utils import min_version

min_version("9.0")


configfile: f"{workflow.basedir}/config.yaml"


include: "rules/common.smk"
include: "rules/cluster.smk"
include: "rules/reported.smk"
include: "rules/download.smk"
include: "rules/preprocess.smk"
include: "rules/split.smk"
include: "rules/train.smk"
include: "rules/import.smk"
include: "rules/predict.smk"
include: "rules/ensemble.smk"
include: "rules/evaluate.smk"
include: "rules/submit.smk"
include: "rules/recording_figures.smk"
include: "rules/score_figures.smk"
include: "rules/readout_figures.smk"
include: "rules/provenance.smk"
include: "rules/report.smk"


localrules:
    all,
    recordings,
    splits,
    members,
    ensembles,
    scores,
    submissions,
    figures,
    tables,
    report,


onstart:
    prepare_cluster()


rule all:
    default_target: True
    input:
        rules.recordings.input,
        rules.report.input,
        rules.figures.input,
        rules.tables.input,
        rules.submissions.input,
