"""Training: from studies to an evaluated bundle, on the very model package that the node runs.

    phantom/    simulated brain MR studies with reports, labels and a stated difficulty
    prepare/    studies from any source → tokens of the model, in a store without patient data
    labels/     labels from lists, from report text by rules, or by a language model
    stages/     one file a stage: tokenizer, series names, CLIP, text tower, heads, zero-shot findings, export
    evaluate/   figures with confidence intervals, by subgroup, as one page and as JSON
    speedrun/   all of it in one command
    retrain.py  a site's labels → a new bundle              split.py    who trains, validates and tests
    base/       value types that cross these folders        run_folder.py  where stages find each other's results

A run is a folder; every stage reads what earlier ones wrote there, and can be stopped and resumed.
"""
