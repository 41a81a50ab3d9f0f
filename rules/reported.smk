# Look-ups of the figures, tables and the page: which results each of them shows.


ALL_SCORES = ensemble_files(SCORES) + [
    SCORES_IN_UNIT.format(protocol=protocol, system=system, unit=unit)
    for protocol in PROTOCOLS
    for system in ranked(protocol)
    for unit in STUDY.further_units(protocol)
]


def uploads_of_system(wildcards):
    return expand(
        SUBMISSION,
        protocol=wildcards.protocol,
        system=wildcards.system,
        upload=uploads_of(STUDY.protocol(wildcards.protocol).tiers),
    )


def uploads_of_protocol(wildcards):
    return [
        path
        for path in SUBMISSIONS
        if path.startswith(f"{RESULTS}/{wildcards.protocol}/")
    ]


SUBMITTED = [protocol for protocol in PROTOCOLS if is_submitted(STUDY, protocol)]


def served_of(wildcards):
    """The emulated server's scores, which only simulated recordings have."""
    if wildcards.protocol not in SUBMITTED or not all_simulated(wildcards.protocol):
        return []
    return expand(
        SERVED, protocol=wildcards.protocol, system=ranked(wildcards.protocol)
    )


def all_simulated(protocol):
    animals = STUDY.predicted_animals(protocol)
    return all(STUDY.recording(a).source.kind == "simulated" for a in animals)


SUBMISSIONS = [
    SUBMISSION.format(protocol=protocol, system=system, upload=upload)
    for protocol in SUBMITTED
    for system in ranked(protocol)
    for upload in uploads_of(STUDY.protocol(protocol).tiers)
]
TITLES = {name: system.title for name, system in STUDY.systems.items()}
# With ensembles of several systems, which are ranked among the systems.
RANKED_TITLES = TITLES | {
    name: ensemble.title or name for name, ensemble in STUDY.settings.ensembles.items()
}
# Whose published numbers stand beside a system that is a variation of a published one.
PUBLISHED_AS = {
    name: system.published_as
    for name, system in STUDY.systems.items()
    if system.published_as
}
# Systems of which a score against the number of members can be shown.
ENSEMBLES = [system for system in SYSTEMS if len(STUDY.members(system)) > 1]
# Imported members have no history and no known cost.
TRAINED = [pair for pair in STUDY.trainings() if not STUDY.is_imported(*pair)]
LEARNED_SETS = list(
    dict.fromkeys(training_set for training_set, _ in STUDY.trainings())
)
TRAINING_SETS = list(dict.fromkeys(training_set for training_set, _ in TRAINED))
REPORTING = fingerprints.reporting()


def protocol_scores(wildcards):
    return expand(SCORES, protocol=wildcards.protocol, system=SYSTEMS)


def ranked_scores(wildcards):
    """With those of ensembles of several systems."""
    return expand(
        SCORES, protocol=wildcards.protocol, system=ranked(wildcards.protocol)
    )


def means(wildcards):
    """Moments of the mean prediction of everything that is ranked."""
    return expand(
        f"{ENSEMBLE}/mean.h5",
        protocol=wildcards.protocol,
        system=ranked(wildcards.protocol),
    )


def joint_moments(wildcards):
    return expand(
        f"{ENSEMBLE}/moments.h5",
        protocol=wildcards.protocol,
        system=STUDY.joint_ensembles(wildcards.protocol),
    )


def further_scores(wildcards):
    """Scores of the same predictions in other units."""
    return expand(
        SCORES_IN_UNIT,
        protocol=wildcards.protocol,
        system=ranked(wildcards.protocol),
        unit=STUDY.further_units(wildcards.protocol),
    )


def protocol_moments(wildcards):
    return [
        MOMENTS.format(protocol=wildcards.protocol, system=system, member=member)
        for system in SYSTEMS
        for member in STUDY.members(system)
    ]


def achievable_of(wildcards):
    """Best possible scores, which only simulated recordings tell."""
    known = all_simulated(wildcards.protocol)
    return expand(ACHIEVABLE, protocol=wildcards.protocol) if known else []


def ensembles_with_sizes(wildcards):
    return expand(
        f"{ENSEMBLE}/moments.h5", protocol=wildcards.protocol, system=ENSEMBLES
    )


def table_files(table, category, title):
    """The forms of a table; the CSV stands in Snakemake's own report, captioned by its family."""
    wildcards = [part.rstrip("}") for part in table.split("{")[1:]]
    family = table.split("_{")[0]
    csv = report(
        TABLE.format(table=f"{table}.csv"),
        caption=f"captions/table_{family}.rst",
        category=category,
        labels={
            "table": title,
            **{name.replace("_", " "): f"{{{name}}}" for name in wildcards},
        },
    )
    return [csv, *multiext(TABLE.format(table=table), ".md", ".tex", ".json")]


def trainings_of(training_set):
    return [pair for pair in TRAINED if pair[0] == training_set]


def records_of(wildcards):
    return member_files(trainings_of(wildcards.training_set), "run.json")


def histories_of(wildcards):
    return member_files(trainings_of(wildcards.training_set), "history.csv")


def weights_of(wildcards):
    """Weights of every member of a training set, imported ones too."""
    trainings = [
        pair for pair in STUDY.trainings() if pair[0] == wildcards.training_set
    ]
    return member_files(trainings, "weights.safetensors")


def protocol_splits(wildcards):
    """What the members of every system were trained on."""
    return [
        SPLIT.format(training_set=training_set, system=system, member=member)
        for training_set, system in protocol_trainings(wildcards)
        for member in STUDY.members(system)
    ]


def protocol_trainings(wildcards):
    return [(STUDY.training_set_of(s, wildcards.protocol), s) for s in SYSTEMS]


def protocol_learned(wildcards):
    return member_files(protocol_trainings(wildcards), "split.parquet")


def learned_otherwise(wildcards):
    """Of adopted members only, so that the audit can be looked at before anything is trained."""
    return [
        f"{GUARD.folder(*names)}/split.parquet"
        for names in GUARD.adopted()
        if names[:2] in protocol_trainings(wildcards)
    ]


def protocol_records(wildcards):
    return member_files(protocol_trainings(wildcards), "run.json")
