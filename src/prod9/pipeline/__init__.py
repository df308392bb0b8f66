"""From a folder of scans to a model: look, plan, train both stages, measure."""
