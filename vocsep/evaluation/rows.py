"""The rows of a report, and what people call them."""

ROW_TITLES = {
    "model": "model",
    "champion": "champion",
    "against": "other model",
    "bundled": "bundled model",
    "mixture": "mixture (floor)",
    "irm1": "IRM1 (ceiling)",
    "irm2": "IRM2",
    "irm1_full": "IRM1, full band",
    "irm2_full": "IRM2, full band",
}
