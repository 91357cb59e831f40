"""scripts/fetch_data: properties of the split, on a synthetic archive."""

import io
import json
import os
import subprocess
import sys
import tarfile

import hub
import pytest
from repository import ROOT, load_module

SCRIPT = ROOT / "scripts" / "fetch_data.py"


@pytest.fixture(scope="module")
def fetch_data():
    return load_module(SCRIPT)


def archive(fetch_data, **lines):
    """An archive of ratings with the given (rating, text) pairs per set."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, file in fetch_data.SETS.items():
            rows = [f"{i}\t{r}\t{t}" for i, (r, t) in enumerate(lines.get(name, []))]
            data = "\r\n".join(rows).encode()
            member = tarfile.TarInfo(f"hutto_ICWSM_2014/{file}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def texts(parts, name=""):
    return [e["text"] for k, v in parts.items() if k.startswith(name) for e in v]


def many(prefix, count=1000):
    return [((-1) ** i * 1.5, f"{prefix} number {i}.") for i in range(count)]


def test_label_is_the_sign_and_near_zero_is_left_out(fetch_data):
    ratings = [(0.2, "a"), (-0.2, "b"), (0.19, "c"), (-0.199, "d"), (0, "e"), (4, "f")]
    parts = fetch_data.split_snippets(archive(fetch_data, movie=ratings))
    labels = {e["text"]: e["label"] for part in parts.values() for e in part}
    assert labels == {"a": 1, "b": 0, "f": 1}


@pytest.mark.parametrize(
    "again",
    [
        "Great, ONE!",
        "great one",
        "  great \u00a0 one... ",
        "ｇｒｅａｔ one",
        "«Great» one",
    ],
)
@pytest.mark.parametrize("where", ["movie", "tweets"])
def test_of_equal_texts_the_first_is_kept(fetch_data, again, where):
    sets = {"movie": [(1, "Great one.")]}
    sets[where] = [*sets.get(where, []), (-1, again), (1, "another")]
    parts = fetch_data.split_snippets(archive(fetch_data, **sets))
    assert sorted(texts(parts)) == ["Great one.", "another"]


def test_text_without_words_is_left_out(fetch_data):
    parts = fetch_data.split_snippets(archive(fetch_data, movie=[(1, "!"), (1, ":)")]))
    assert texts(parts) == []


def test_no_text_is_in_two_parts_and_a_fifth_is_for_testing(fetch_data):
    sets = {name: many(name) + many("shared", 200) for name in fetch_data.SETS}
    parts = fetch_data.split_snippets(archive(fetch_data, **sets))
    keys = [fetch_data.normalise(text) for text in texts(parts)]
    assert len(keys) == len(set(keys)) == 4 * 1000 + 200
    for name in fetch_data.SETS:
        test = len(texts(parts, f"{name}/test"))
        # 5 standard deviations of a binomial with p = 0.2, n = 1000
        assert test / len(texts(parts, name)) == pytest.approx(0.2, abs=0.065)


def test_split_of_a_text_depends_on_the_text_alone(fetch_data):
    lines = many("movie")
    whole = fetch_data.split_snippets(archive(fetch_data, movie=lines))
    other = fetch_data.split_snippets(archive(fetch_data, nyt=lines[::-2]))
    test = set(texts(whole, "movie/test"))
    assert test.issuperset(texts(other, "nyt/test"))
    assert test.isdisjoint(texts(other, "nyt/train"))


def test_order_and_bytes_are_those_of_the_archive(fetch_data, tmp_path, monkeypatch):
    # U+0085 and U+2028 end lines for str.splitlines, not in the file.
    lines = [(1, f"caf\u00e9 \u0085 {i}\u2028 x") for i in range(20)]
    sdist = tmp_path / "sdist.tar"
    data = archive(fetch_data, amazon=lines)
    with tarfile.open(sdist, "w") as tar:
        member = tarfile.TarInfo(f"v-1/{fetch_data.SNIPPETS_ARCHIVE}")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    monkeypatch.setattr(fetch_data, "pip_download", lambda *_: sdist)
    (tmp_path / "out").mkdir()
    fetch_data.fetch_snippets(tmp_path / "out")
    written = []
    for part in ("train", "test"):
        text = (tmp_path / "out/amazon" / f"{part}.jsonl").read_bytes()
        written += [json.loads(line)["text"] for line in text.splitlines()]
    assert sorted(written) == sorted(text for _, text in lines)


def parquet(rows):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table(rows), buffer)
    return buffer.getvalue()


def rows_of(name, split, count, column="text"):
    numbers = range(count)
    return {
        "idx": list(numbers),
        column: [f"{name} {split} caf\u00e9 {i}\nline\u2028" for i in numbers],
        "label": [i % 2 for i in numbers],
    }


def repository(name, folder, column, splits):
    """Files as the repositories have them: parquet in shards, a card that names them
    and, in some, a split without labels."""
    files, card = {}, ["---", "configs:", "- config_name: default", "  data_files:"]
    for split, count in splits.items():
        card += [f"  - split: {split}", f"    path: {folder}{split}-*"]
        rows = rows_of(name, split, count, column)
        if split == "unsupervised":
            rows["label"] = [-1] * count
        half = count // 2
        for shard, part in enumerate((slice(half), slice(half, None))):
            file = f"{folder}{split}-0000{shard}-of-00002.parquet"
            files[file] = parquet({key: v[part] for key, v in rows.items()})
    return files | {"README.md": "\n".join([*card, "---", ""]).encode()}


@pytest.mark.slow
def test_imdb_plus_has_the_sets_of_the_hub(fetch_data, tmp_path, monkeypatch):
    """Through the package `datasets`, from a server on the loopback interface."""
    pytest.importorskip("datasets")
    shared = {"train": 40, "test": 40}
    repositories = {
        "stanfordnlp/imdb": repository(
            "imdb", "plain_text/", "text", {**shared, "unsupervised": 40}
        ),
        "fancyzhx/yelp_polarity": repository("yelp", "plain_text/", "text", shared),
        "cornell-movie-review-data/rotten_tomatoes": repository(
            "rt", "", "text", {**shared, "validation": 40}
        ),
        "stanfordnlp/sst2": repository(
            "sst2", "data/", "sentence", {**shared, "validation": 40}
        ),
        "fancyzhx/amazon_polarity": repository(
            "amazon", "amazon_polarity/", "content", shared
        ),
    }
    folder = tmp_path / "imdb_plus"
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import fetch_data; "
        "fetch_data.fetch_imdb_plus(pathlib.Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(SCRIPT.parent), str(folder)]
    with hub.serve(repositories) as url:
        home = {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "home")}
        home |= {"HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
        subprocess.run(command, check=True, env=os.environ | home)
    for name in fetch_data.IMDB_PLUS:
        for part, split, count in (
            ("train", "train", {"yelp": 8, "amazon": 2}.get(name, 40)),
            (
                "test",
                "validation" if name == "sst2" else "test",
                2 if name == "amazon" else 40,
            ),
        ):
            data = (folder / name / f"{part}.jsonl").read_bytes().splitlines()
            rows = rows_of(name, split, count)
            assert [json.loads(line) for line in data] == [
                {"text": text, "label": label}
                for text, label in zip(rows["text"], rows["label"], strict=True)
            ]
    # Existing files stay untouched.
    monkeypatch.setattr(fetch_data, "fetch_set", lambda *_: pytest.fail("fetched"))
    fetch_data.fetch_imdb_plus(folder)


def test_folder_appears_only_when_it_is_as_expected(fetch_data, tmp_path):
    def fetcher(content):
        def fetch(target):
            calls.append(content)
            (target / "a.txt").write_text(content)

        return fetch

    calls = []
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "a.txt").write_text("right")
    expected = fetch_data.content_hash(tmp_path / "good", ["a.txt"])
    folder = tmp_path / "data" / "set"

    with pytest.raises(SystemExit, match="hash"):
        fetch_data.provide(folder, ["a.txt"], expected, fetcher("wrong"))
    assert list((tmp_path / "data").iterdir()) == []
    fetch_data.provide(folder, ["a.txt"], expected, fetcher("right"))
    fetch_data.provide(folder, ["a.txt"], expected, fetcher("unused"))
    assert calls == ["wrong", "right"]
    (folder / "a.txt").write_text("damaged")
    fetch_data.provide(folder, ["a.txt"], expected, fetcher("right"))
    assert (folder / "a.txt").read_text() == "right"
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["set"]
