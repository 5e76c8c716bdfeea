"""The public datasets by name: where each lies, what of it is needed, how it is added.

Numbers and names alone; sizes and checksums are asked of the archives when it is fetched.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Source:
    """Files of an archive: those that match a pattern, put into a folder of the dataset.

    images: they are slides or patches, of which `--only` may choose. unpack: they are zip files.
    strip: what of their path in the archive does not count.
    """

    archive: str
    identifier: str
    patterns: tuple[str, ...]
    folder: str = ""
    images: bool = False
    unpack: bool = False
    strip: str = ""


@dataclass(frozen=True)
class Public:
    """A dataset: what it is, where it lies, and how `add` takes it from its folder.

    add: options of `embedstore add` by name; paths are below the folder, a * stands for one file.
    licence and citation are those known here, shown where no network is; gb is about its size,
    where its authors say it.
    columns: what a table's columns mean, where their names do not say it. table: what of
    `tables.TABLES` is written before it is added. Empty add: it is not added.
    """

    about: str
    sources: tuple[Source, ...]
    licence: str
    citation: str
    gb: float | None
    add: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    positive: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    table: str | None = None
    note: str = ""


_TIFF = ("*.tiff",)
_BENCHMARK = "DeepMicroscopy/AMi-Br_Benchmark"
_BANERJEE = (
    "Banerjee et al. 2026, Benchmarking Deep Learning and Vision Foundation Models for Atypical "
    "vs. Normal Mitosis Classification, MELBA 2026:006"
)


def _patches(folder: str) -> Source:
    """Return a folder of the benchmark's patches, one below it a class."""
    return Source(
        "github", _BENCHMARK, (f"{folder}/*",), "patches", images=True, strip=f"{folder}/"
    )


_ATYPICAL = {"Atypical": "atypical", "Normal": "normal"}

PUBLIC: dict[str, Public] = {
    "midog++": Public(
        "mitotic figures and look-alikes, 503 regions of 7 tumour types, human and canine",
        (
            Source("figshare", "6615571", _TIFF, "images", images=True),
            Source(
                "github",
                "DeepMicroscopy/MIDOGpp",
                ("databases/MIDOG++.json", "datasets_xvalidation.csv"),
                strip="databases/",
            ),
        ),
        "CC0 (files), CC BY 4.0 (collection)",
        "Aubreville et al. 2023, A comprehensive multi-domain dataset for mitotic figure "
        "detection, Scientific Data 10:484, doi 10.1038/s41597-023-02327-4",
        65,
        {
            "annotations": "MIDOG++.json",
            "slides": "images",
            "slide_table": "datasets_xvalidation.csv",
        },
    ),
    "midog2021": Public(
        "mitotic figures and look-alikes, 200 regions of human breast cancer, four scanners",
        (
            Source("zenodo", "4643381", _TIFF, "images", images=True),
            Source("zenodo", "4643381", ("*.json",)),
        ),
        "see the record",
        "Aubreville et al. 2021, MIDOG challenge training set, doi 10.5281/zenodo.4643381",
        None,
        {"annotations": "*.json", "slides": "images"},
    ),
    "midog2022": Public(
        "mitotic figures and look-alikes, 5 tumour types: the paper's dataset",
        (
            Source("zenodo", "6547151", _TIFF, "images", images=True),
            Source("zenodo", "6547151", ("*.json",)),
        ),
        "see the record",
        "Aubreville et al. 2022, MIDOG 2022 training set, doi 10.5281/zenodo.6547151",
        None,
        {"annotations": "*.json", "slides": "images"},
    ),
    "midog2025-t2": Public(
        "atypical and normal mitotic figures, patches of 128 px: MIDOG 2025, track 2",
        (
            Source("zenodo", "15188326", ("*.zip",), unpack=True),
            Source("zenodo", "15188326", ("*.csv",)),
        ),
        "see the record",
        "Weiss et al. 2025, A dataset of atypical vs normal mitoses classification for MIDOG 2025, "
        "doi 10.5281/zenodo.15188326",
        None,
        {"annotations": "patches.csv"},
        {"AMF": "atypical", "NMF": "normal"},
        "atypical",
        table="midog2025-t2",
    ),
    "ccmct": Public(
        "mitotic figures and look-alikes, 32 whole slides of canine cutaneous mast cell tumour",
        (
            Source("figshare", "4552445", ("*.svs",), "slides", images=True),
            Source(
                "github",
                "DeepMicroscopy/MITOS_WSI_CCMCT",
                ("databases/MITOS_WSI_CCMCT_ODAEL.sqlite",),
                strip="databases/",
            ),
        ),
        "see the collection",
        "Bertram et al. 2019, A large-scale dataset for mitotic figure assessment on whole slide "
        "images of canine cutaneous mast cell tumor, Scientific Data 6:274, "
        "doi 10.1038/s41597-019-0290-4",
        None,
        {"annotations": "MITOS_WSI_CCMCT_ODAEL.sqlite", "slides": "slides"},
    ),
    "cmc": Public(
        "mitotic figures and look-alikes, 21 whole slides of canine mammary carcinoma",
        (
            Source("figshare", "4951281", ("*.svs",), "slides", images=True),
            Source(
                "github",
                "DeepMicroscopy/MITOS_WSI_CMC",
                ("databases/MITOS_WSI_CMC_CODAEL_TR_ROI.sqlite",),
                strip="databases/",
            ),
        ),
        "see the collection",
        "Aubreville et al. 2020, A completely annotated whole slide image dataset of canine breast "
        "cancer to aid human breast cancer research, Scientific Data 7:417, "
        "doi 10.1038/s41597-020-00756-z",
        None,
        {"annotations": "MITOS_WSI_CMC_CODAEL_TR_ROI.sqlite", "slides": "slides"},
    ),
    "ami-br": Public(
        "3,720 atypical and normal mitotic figures of human breast cancer, patches of 128 px",
        (
            Source("github", "DeepMicroscopy/AMi-Br", ("patches/*",), images=True),
            Source("github", "DeepMicroscopy/AMi-Br", ("AMI-BR.csv",)),
        ),
        "see the repository",
        "Bertram et al. 2025, Histologic Dataset of Normal and Atypical Mitotic Figures on Human "
        "Breast Cancer (AMi-Br), BVM 2025, doi 10.1007/978-3-658-47422-5_25",
        None,
        {"annotations": "patches.csv"},
        {"atypical": "atypical", "normal": "normal"},
        "atypical",
        columns={"vote": "expert*"},
        table="ami-br",
    ),
    "atnorm-br": Public(
        "746 atypical and normal mitotic figures of human breast cancer (TCGA), patches",
        (_patches("AtNorM-Br"),),
        "see the repository",
        _BANERJEE,
        None,
        {"annotations": "patches"},
        _ATYPICAL,
        "atypical",
        note="the patches name no patient: each counts as a case of its own",
    ),
    "atnorm-md": Public(
        "2,107 atypical and normal mitotic figures of several tumour types, patches",
        (
            _patches("AtNorM-MD"),
            Source("github", _BENCHMARK, ("AtNorM-MD_expert_votes.csv",)),
        ),
        "see the repository",
        _BANERJEE,
        None,
        {"annotations": "patches"},
        _ATYPICAL,
        "atypical",
        note="the patches name no patient: each counts as a case of its own",
    ),
    "ocelot": Public(
        "tumour and other cells, 673 pairs of fields of six organs (TCGA); terms to be accepted",
        (Source("zenodo", "8417503", ("*.zip",), unpack=True),),
        "CC BY-NC 4.0, with terms of its own",
        "Ryu et al. 2023, OCELOT: Overlapped Cell on Tissue Dataset for Histopathology, CVPR",
        0.3,
        note="its tables have no header and a label by number (1: other, 2: tumour), a file a "
        "field: it is fetched, and added by hand",
    ),
}
