"""The embedded corpus, from a made-up installation whose texts are known and from the real one."""

import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tikmix_hf import corpora, installed_text
from tikmix_hf.installed_text import TextFiles

# Unequal texts of a few hundred characters: shorter ones would be left out.
NUM_FILES = 24


def prose(key, num_words=60):
    rng = np.random.default_rng(list(key.encode()))
    syllables = np.array(["ka", "lo", "mi", "ru", "se", "to", "va", "ni"])
    return " ".join("".join(rng.choice(syllables, 3)) for _ in range(num_words))


def files_of(package, read=installed_text.read_code, **settings):
    return TextFiles(description=package, tags=(), roots=(package,), read=read, **settings)


@pytest.fixture
def installation(tmp_path, monkeypatch):
    """Six domains and three targets in packages that cannot be imported; caps that fit them."""
    for package in [*(f"domain_{k}" for k in range(6)), *(f"target_{j}" for j in range(3))]:
        (tmp_path / package).mkdir()
        for i in range(NUM_FILES):
            body = f"# Licence of all files\n{prose(f'{package}/{i}')}\n"
            (tmp_path / package / f"part_{i}.py").write_text(body)
        (tmp_path / package / "__init__.py").write_text("raise RuntimeError('was imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(corpora, "DOMAINS", {f"d{k}": files_of(f"domain_{k}") for k in range(6)})
    monkeypatch.setattr(corpora, "TARGETS", {f"t{j}": files_of(f"target_{j}") for j in range(3)})
    monkeypatch.setattr(corpora, "MIN_PART_CHARACTERS", 300)
    return tmp_path


def all_texts(corpus):
    sides = [side for pair in corpus.domains.values() for side in pair]
    return [*sides, *corpus.targets.values(), *corpus.target_evals.values()]


def test_every_file_is_used_once_and_none_on_both_sides(installation):
    corpus = corpora.documents()
    for k in range(6):
        train, heldout = corpus.domains[f"d{k}"]
        expected = [prose(f"domain_{k}/{i}") for i in range(NUM_FILES)]
        assert sorted(train + heldout) == sorted(expected)
        # A tenth of the characters, give or take the one file that crosses it.
        assert abs(len(heldout) - NUM_FILES / corpora.HELDOUT_EVERY) <= 1
    for j in range(3):
        both = corpus.targets[f"t{j}"] + corpus.target_evals[f"t{j}"]
        assert sorted(both) == sorted(prose(f"target_{j}/{i}") for i in range(NUM_FILES))
        assert abs(len(corpus.targets[f"t{j}"]) - NUM_FILES / corpora.EVAL_EVERY) <= 1


def test_all_documents_of_a_file_stay_on_one_side(installation, monkeypatch):
    for i in range(NUM_FILES):
        entries = "\n\n".join(f"{i}: {prose(f'{i}/{e}')}" for e in range(3))
        (installation / "domain_0" / f"part_{i}.py").write_text(entries)
    by_paragraph = files_of("domain_0", installed_text.read_paragraphs)
    monkeypatch.setitem(corpora.DOMAINS, "d0", by_paragraph)
    sides = [{text.split(":")[0] for text in side} for side in corpora.documents().domains["d0"]]
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == {str(i) for i in range(NUM_FILES)}


def test_a_text_met_twice_is_kept_once_and_by_the_target(installation):
    shared = prose("target_0/3")
    (installation / "domain_2" / "part_0.py").write_text(shared.replace(" ", "\n  "))
    (installation / "domain_2" / "part_1.py").write_text(shared)
    corpus = corpora.documents()
    normalised = [" ".join(text.split()) for side in all_texts(corpus) for text in side]
    assert normalised.count(shared) == 1
    assert shared in corpus.targets["t0"] + corpus.target_evals["t0"]


def test_the_seed_draws_the_split_and_the_same_seed_the_same(installation):
    assert corpora.documents(3) == corpora.documents(3)
    assert corpora.documents(3).domains["d0"][1] != corpora.documents(4).domains["d0"][1]


def test_a_large_package_is_cut_at_whole_files(installation, monkeypatch):
    size = len(prose("domain_0/0"))
    monkeypatch.setattr(corpora, "MAX_DOMAIN_CHARACTERS", 5 * size)
    for train, heldout in corpora.documents().domains.values():
        assert 5 * size <= sum(map(len, train + heldout)) < 6 * size + 100  # texts differ by a few


def test_an_installation_without_some_packages_makes_do_with_six_domains(installation, monkeypatch):
    monkeypatch.setitem(corpora.DOMAINS, "absent", files_of("package_that_is_not_there"))
    assert list(corpora.documents().domains) == [f"d{k}" for k in range(6)]
    monkeypatch.delitem(corpora.DOMAINS, "d5")
    with pytest.raises(RuntimeError, match=r"6 domains; .* for 5 .*package_that_is_not_there"):
        corpora.documents()
    monkeypatch.setitem(corpora.DOMAINS, "d5", files_of("domain_5"))
    monkeypatch.delitem(corpora.TARGETS, "t1")
    with pytest.raises(RuntimeError, match="3 targets; this installation has text for 2"):
        corpora.documents()


def contents(embedded):
    parts = [*embedded.targets.values(), *embedded.target_evals.values()]
    parts += [side for domain in embedded.domains for side in (domain.train, domain.heldout)]
    return [part.with_format("numpy")["input_ids"][:].tolist() for part in parts]


def test_loading_packs_every_part_and_a_warm_load_equals_the_cold_one(installation, tmp_path):
    cold = corpora.load(block_size=16, vocab_size=300, cache_dir=tmp_path / "cache")
    assert cold.domains.names == tuple(f"d{k}" for k in range(6))
    assert list(cold.targets) == list(cold.target_evals) == ["t0", "t1", "t2"]
    assert len(cold.tokenizer) == 300
    assert {domain.row_length for domain in cold.domains} == {16}
    stored = cold.domains["d0"].train.data.column("input_ids").type
    assert (str(stored.value_type), stored.list_size) == ("int32", 16)
    # What is decoded is the joined training text but for a tail shorter than a block.
    train, _ = corpora.documents().domains["d0"]
    decoded = cold.tokenizer.decode(np.ravel(contents(cold)[6]).tolist())
    assert (corpora.EOS.join(train) + corpora.EOS).startswith(decoded)
    (file,) = (tmp_path / "cache").iterdir()
    written = file.stat().st_mtime_ns
    warm = corpora.load(block_size=16, vocab_size=300, cache_dir=tmp_path / "cache")
    assert contents(warm) == contents(cold)
    assert warm.domains.fingerprint() == cold.domains.fingerprint()
    assert warm.tokenizer.get_vocab() == cold.tokenizer.get_vocab()
    assert file.stat().st_mtime_ns == written


def damage_middle(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


@pytest.mark.parametrize(
    "damage", [damage_middle, lambda data: data[:-100], lambda data: b"", lambda data: b"not a zip"]
)
def test_a_damaged_cache_is_built_again(damage, installation, tmp_path):
    settings = {"block_size": 16, "vocab_size": 300, "cache_dir": tmp_path / "cache"}
    cold = corpora.load(**settings)
    (file,) = (tmp_path / "cache").iterdir()
    intact = file.read_bytes()
    file.write_bytes(damage(intact))
    assert contents(corpora.load(**settings)) == contents(cold)
    assert [entry.stat().st_size for entry in (tmp_path / "cache").iterdir()] == [len(intact)]


def test_settings_and_installed_versions_have_caches_of_their_own(
    installation, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    folder = tmp_path / "tikmix_hf"
    corpora.load(block_size=16, vocab_size=300)
    assert len(list(folder.iterdir())) == 1
    corpora.load(block_size=8, vocab_size=300)
    corpora.load(block_size=16, vocab_size=301)
    corpora.load(block_size=16, vocab_size=300, seed=1)
    assert len(list(folder.iterdir())) == 4
    monkeypatch.setattr(corpora, "metadata_folders", lambda: [tmp_path / "torch-9.dist-info"])
    corpora.load(block_size=16, vocab_size=300)
    assert len(list(folder.iterdir())) == 5


def test_two_builders_that_race_leave_one_intact_file(installation, tmp_path, monkeypatch):
    settings = {"block_size": 16, "vocab_size": 300, "cache_dir": tmp_path / "cache"}
    both_found_no_cache = threading.Barrier(2, timeout=60)
    build = corpora._build

    def build_together(*arguments):
        both_found_no_cache.wait()
        return build(*arguments)

    monkeypatch.setattr(corpora, "_build", build_together)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: corpora.load(**settings), range(2))
    assert contents(first) == contents(second) == contents(corpora.load(**settings))
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_vocabulary_without_room_for_bytes_is_refused():
    with pytest.raises(ValueError, match="`vocab_size`"):
        corpora.load(vocab_size=256)


def test_docstrings_are_read_in_order_and_without_running_anything(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        textwrap.dedent('''
            """Module."""
            raise SystemExit

            class Thing:
                """Class."""
                if True:
                    def method(self):
                        """Method.

                        Second line with an invalid escape \\d.
                        """
                        "not a docstring"

            async def function(): "Function."
        ''')
    )
    method = "Method.\n\nSecond line with an invalid escape \\d."
    assert installed_text.read_docstrings(path) == ["Module.", "Class.", method, "Function."]
    path.write_text("print 'Python 2'")
    assert installed_text.read_docstrings(path) == []
    path.write_bytes(b"\0")
    assert installed_text.read_docstrings(path) == []


@pytest.mark.parametrize(
    "header",
    [
        "# Licence\n#\n# more\n",
        "// Licence\n// more\n\n",
        "/* Licence\n * more */\n",
        "#!/bin/env\n",
    ],
)
def test_code_begins_behind_its_leading_comments(header, tmp_path):
    for code in ("import os  # why\n# inner", "#pragma once\n// inner\nint x;", "#include <a>\n#b"):
        (tmp_path / "file").write_text(header + code + "\n")
        assert installed_text.read_code(tmp_path / "file") == [code]


def test_table_entries_are_joined_in_order_to_documents(tmp_path):
    entries = [f"- entry: {prose(str(i), num_words=30)}" for i in range(20)]
    (tmp_path / "table.yaml").write_text("\n\n".join(entries))
    documents = installed_text.read_table(tmp_path / "table.yaml")
    assert "\n\n".join(documents) == "\n\n".join(entries)
    assert all(len(text) >= installed_text.TABLE_CHARACTERS for text in documents[:-1])
    assert len(documents) > 1


def test_help_topics_are_the_values_of_the_dictionary(tmp_path):
    (tmp_path / "topics.py").write_text("# made\ntopics = {'a': 'first', 'b': r'''second'''}\n")
    assert installed_text.read_topics(tmp_path / "topics.py") == ["first", "second"]


def test_the_real_installation_has_unlike_domains_and_targets_of_other_packages(monkeypatch):
    monkeypatch.setattr(corpora, "MAX_DOMAIN_CHARACTERS", 100_000)
    monkeypatch.setattr(corpora, "MAX_TARGET_CHARACTERS", 60_000)
    corpus = corpora.documents()
    assert len(corpus.domains) >= corpora.MIN_DOMAINS
    assert len(corpus.targets) >= corpora.MIN_TARGETS
    assert corpus.descriptions.keys() == corpus.domains.keys() | corpus.targets.keys()
    texts = [" ".join(text.split()) for side in all_texts(corpus) for text in side]
    assert len(texts) == len(set(texts))
    in_domains = {path for files in installed_text.DOMAINS.values() for path in paths(files)}
    in_targets = {path for files in installed_text.TARGETS.values() for path in paths(files)}
    assert in_domains
    assert not in_domains & in_targets


def paths(files):
    return [path for root in files.roots for _, path in files._files(root)]
