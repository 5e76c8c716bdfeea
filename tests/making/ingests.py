"""Models and options that tests ingest with."""

from embedstore.ingest import IngestOptions

RESNET, VIT = "timm:test_resnet", "timm:test_vit"


RANDOM = IngestOptions(weights={RESNET: "random"}, dtype="float32")
