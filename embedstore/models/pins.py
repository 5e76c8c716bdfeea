"""Which file of a hub's repository a model is: its revision, and the SHA-256 of its bytes.

Facts of public tables (raw2features' registry; slide2vec for revisions alone), taken over and not
held against the hub from here. A file that is fetched is checked by them; what has no SHA-256 here
is only pinned to its revision, and a model without an entry is what its repository holds today.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Pin:
    """A revision (commit) of a repository, the file in it, and the SHA-256 of that if known."""

    revision: str
    file: str | None = None
    sha256: str | None = None


PINS: dict[str, Pin] = {
    "gigapath": Pin(
        "eba85dd46097c3eedfcc2a3a9a930baecb6bcc19",
        "pytorch_model.bin",
        "877947214318afa9e011754b74bbc3894a1f480a253afc7bc8045b8321dedd63",
    ),
    "h-optimus-0": Pin(
        "b145cc1e6c6b30d3251aa8b1f844e6974188a743",
        "pytorch_model.bin",
        "bf47b8467403079798661601b6ab06533be789da48d3f8b510aaefe2fbc55cd3",
    ),
    "virchow": Pin(
        "19eebc84ae33e79f1b2d866e6ff90ae50e522f9a",
        "model.safetensors",
        "3416891b37a2349a2d9ce7ecf00b64a6277011b41351436c1ceb0abb80805408",
    ),
    "virchow2": Pin(
        "3158645804b69e3f3bc4439d4116edddf0840a72",
        "model.safetensors",
        "8d6cea947eb2418c3b0dff48cfb9b238e47744ab0dfca21b2b0637b140769b4b",
    ),
    "uni": Pin(
        "b55a5ec6cade1a39edfe6534189a9b8ca7a022f0",
        "pytorch_model.bin",
        "56ef09b44a25dc5c7eedc55551b3d47bcd17659a7a33837cf9abc9ec4e2ffb40",
    ),
    "phikon": Pin(
        "057cc0295895c2df3dd7681a89680da6015cbefe",
        "model.safetensors",
        "d01642bfeb683c6b039622eca273e0a8e4208065a4595b63edba178c1c4cfa68",
    ),
    "uni2-h": Pin(
        "d517a8dd47902dd7c308b3c36f63bce47e7b9a43",
        "pytorch_model.bin",
        "6e077eda234bebc595868d918d3458d9dd32a050199b0ff04443b2f46a0a3b1e",
    ),
    "h-optimus-1": Pin(
        "3592cb220dec7a150c5d7813fb56e68bd57473b9",
        "model.safetensors",
        "c4f1e5b457ddf00679626053b0bf2899be6a19c3a04ad191c87ad1cdfd1abfe1",
    ),
    "openmidnight": Pin(
        "87189e6674d397a14a5cd342c97b1a1615a185aa",
        "teacher_checkpoint_load.pt",
        "b57121fc10e2b04c9e85514fa5e4c23b75329301e05bfc756c3bca57312505be",
    ),
    "h0-mini": Pin(
        "5b5cc0505d19ae558270045eb0df8c34df4d9609",
        "model.safetensors",
        "5e4de45a6527a8160f7c21fe3105c987757efe30ce581e1f2cf5809476069ade",
    ),
    "phikon-v2": Pin(
        "2ae989a9c40cffaa27f0a6cb29cc94d1d6f9a5fd",
        "model.safetensors",
        "261ae680fa699b3b951597fd57aa19c02ef735805acb104b93af69b36d928569",
    ),
    "hibou-b": Pin(
        "7fdc8cce365ebfd9e7e60ee6ee9a8d4d59388f3c",
        "model.safetensors",
        "2121db3cac83bc9abf13a458a37b0740e2ce725609ff8d4b8e6b6c56c30c3ab6",
    ),
    "hibou-l": Pin(
        "31a3b9fee16554c8552cb643d311733bce8faf7c",
        "model.safetensors",
        "a63d1699448143ceccf2b7e1c4bf35b995c51f86ef8a6efb471af2eee210b79c",
    ),
    "midnight": Pin(
        "adc6b15679c981cce6f9b018bbad09d16eeeda9f",
        "model.safetensors",
        "52c14f20386ca17c2af8a7bf32c31c352668a8fbf6aefc88d86be6eaa0c72ca1",
    ),
    "gpfm": Pin(
        "c2e0c6c7cea4d7ae67151c3375d780712f82254e",
        "GPFM.pth",
        "ebde1a9d7d9098848034bcff30f8771034c8d0b69e32846fa266940f2fd4604c",
    ),
    "pathorchestra": Pin(
        "8280b11a63919f25e4610f3315c2646b5f38bbb5",
        "pytorch_model.bin",
        "3bcf28a162ed187d63ce42b41096eb298702b6d1be8640555660b053354db912",
    ),
    "kaiko-l14": Pin(
        "fb802e347d2c59f05207b70ad75f7df30019c188",
        "model.safetensors",
        "149c8b21c60a7115a17572073b09ef142411c91b5194c84a99ebba8b83f20e69",
    ),
    "lunit-s16": Pin(
        "9ed09909d93f9d39a092d8e49717ae48f9b44e6f",
        "model.safetensors",
        "a19eb37d6cf038a7e8a34c7e9ec50698d02759b2f49dd799492f6ce7e4cb5937",
    ),
    "lunit-s8": Pin(
        "c23bc01cfbe022bc1f2a8a9306125a07818e4eb4",
        "model.safetensors",
        "0b7e0236ce430064b31485bbb6f85e661dc5eca0cde709e8f04d59f1c2b23e0b",
    ),
    "mstar": Pin(
        "162ae5da9897d4ff8b9a4c2daea175ae45012ef7",
        "model.safetensors",
        "13b2df84648420bbc0fd2eca43ddfb5b7c9764920149988b3e015f39ed6f07ee",
    ),
    "gigapath-flash": Pin(
        "f5c3a709ad81d3a5605bb2eb38cd5c2e53da0375",
        "pytorch_model.bin",
        "ea5e36c2b3593b073868f91b9016559a620f0d6752e3861cb2bb0b5312238473",
    ),
    "openpath": Pin(
        "22b339237195931eb56ea6c86653362edd2dd155",
        "teacher_checkpoint.pth",
        "1b389360b4867b5159ce7534ff231f51e87d3cf140daa4b37483d0a178af3da3",
    ),
    "sp22m": Pin(
        "8f636e50446c6b45008fa8cecf30f7bc92633a11",
        "pytorch_model.bin",
        "4776892690a941a5728157c38d64aab549d7b861394a328cf3a5620222c4ff41",
    ),
    "dinov2-l": Pin(
        "4741e1cafbf45415e77074bb0cb42dba76c8684a",
        "model.safetensors",
        "0424a5d1b515278cba3c6640ccbeaacc41de59d3a93df0dd5e494285eea2b355",
    ),
    "mascaret": Pin("e95e7ea15e039e78d74def101415e19d9a67ba80"),
    "phaet": Pin("e0ce6e0ee248470bd8604823e412ca64048a2495"),
}
