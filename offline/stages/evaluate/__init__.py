"""The stage `evaluate`: chooses fusion weights and ranker, and measures the release before it is published.

The protocol is leave-one-out with full ranking, through ONNX Runtime as in serving. `stage` builds the evidence lists,
chooses weights and ranker on a sample of validation users, and measures both splits.
`offline.commands.evaluate_release` measures a published release again. Histories for the test item include the
validation item, as they would in serving.
"""
