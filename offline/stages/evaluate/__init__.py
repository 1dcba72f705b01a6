"""Measures what will be served, and chooses fusion weights and ranker: leave-one-out, full ranking, by ONNX Runtime.

As a stage (`offline.stages.evaluate.stage`) it builds the evidence lists, chooses weights and ranker on a sample of
validation users and measures both splits; `offline.stages.evaluate.published` measures a published release on the
shop's data again. Histories for the test item include the validation item, as they would when serving.
"""
