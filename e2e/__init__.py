"""End-to-end training on the manifests of the probes: not built yet (see CHANGELOG)."""
