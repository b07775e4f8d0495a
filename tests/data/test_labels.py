from pathlib import Path

import pytest

from whichcar.data.labels import (
    draw_share,
    folder_name,
    labels_from_folders,
    read_labels,
    write_labels,
)
from whichcar.errors import DataError
from whichcar.records import Label


def labels_file(folder: Path, text: str | bytes) -> Path:
    path = folder / "labels.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refused(path: Path) -> str:
    with pytest.raises(DataError) as raised:
        read_labels(path)
    text = str(raised.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    return text


def test_rows_become_labels_in_their_order(tmp_path: Path) -> None:
    path = labels_file(tmp_path, "img_name,class,subset\nb.jpg,BMW X3 2012,train\na.jpg,Ram C/V Van 2012,test\n")
    assert read_labels(path) == [Label("b.jpg", "BMW X3 2012", "train"), Label("a.jpg", "Ram C/V Van 2012", "test")]


@pytest.mark.parametrize(
    "text",
    [
        "subset,class,img_name\ntrain,BMW,a.jpg\n",
        "id,img_name, class ,subset,note\n7,a.jpg,BMW,train,\n",
        "\ufeffimg_name,class,subset\na.jpg,BMW,train\n",
        "img_name,class,subset\r\n\r\na.jpg, BMW , train \r\n",
        'img_name,class,subset\n"a.jpg","BMW",train,\n',
    ],
)
def test_order_of_columns_byte_order_mark_line_ends_and_spaces_do_not_matter(tmp_path: Path, text: str) -> None:
    assert read_labels(labels_file(tmp_path, text)) == [Label("a.jpg", "BMW", "train")]


def test_quoted_names_hold_commas_quotes_and_unicode(tmp_path: Path) -> None:
    path = labels_file(tmp_path, 'img_name,class,subset\n"a, b.jpg","Škoda ""Fabia"", 2012",train\n')
    assert read_labels(path) == [Label("a, b.jpg", 'Škoda "Fabia", 2012', "train")]


def test_one_class_written_in_two_unicode_forms_is_one_class(tmp_path: Path) -> None:
    path = labels_file(tmp_path, "img_name,class,subset\na.jpg,Citroe\u0308n,train\nb.jpg,Citroën,train\n")
    assert len({label.class_name for label in read_labels(path)}) == 1


def test_a_short_row_stays_a_row(tmp_path: Path) -> None:
    path = labels_file(tmp_path, "img_name,class,subset\na.jpg\n,,\n")
    assert read_labels(path) == [Label("a.jpg", "", ""), Label("", "", "")]


def test_a_missing_column_is_named_with_what_was_found(tmp_path: Path) -> None:
    text = refused(labels_file(tmp_path, "file,class,subset\na.jpg,BMW,train\n"))
    assert "no column img_name" in text
    assert "found file, class, subset" in text


@pytest.mark.parametrize(
    ("header", "advice"),
    [
        ("image,class", "found image, class; the header must name img_name and class"),
        ("image,class,split", "found image, class, split; the header must name img_name, class and subset"),
        (
            "image,label",
            "found image, label; the header is missing or wrong: the first line must name img_name and class",
        ),
        ("1.jpg,Ka", "found 1.jpg, Ka; the header is missing or wrong: the first line must name img_name and class"),
    ],
)
def test_a_wrong_or_missing_header_is_answered_with_the_columns_that_are_needed(
    tmp_path: Path, header: str, advice: str
) -> None:
    assert refused(labels_file(tmp_path, f"{header}\na.jpg,BMW,train\n")).endswith(advice)


def test_semicolons_are_recognised(tmp_path: Path) -> None:
    assert "commas, not ';'" in refused(labels_file(tmp_path, "img_name;class;subset\na.jpg;BMW;train\n"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no column img_name, class; found nothing"),
        ("img_name,class,subset\n", "no row"),
        ("img_name,class,subset\n\n\n", "no row"),
        ("img_name,class,class,subset\na,b,b,train\n", "class is twice"),
        ("img_name,class,subset\na.jpg,BMW, X3,train\n", "line 2 has 4 fields, the header 3"),
        ('img_name,class,subset\na.jpg,BMW,train\nb.jpg,"BMW,train\nc.jpg,BMW,test\n', "is no CSV"),
        ("img_name,class,subset\na.jpg,BMW,train\n".encode("utf-16"), "not UTF-8"),
        ("img_name,class,subset\na.jpg,Citroën,train\n".encode("latin-1"), "not UTF-8"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "not UTF-8"),
    ],
)
def test_an_unusable_file_says_why(tmp_path: Path, content: str | bytes, said: str) -> None:
    assert said in refused(labels_file(tmp_path, content))


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "labels.csv")
    assert "directory" in refused(tmp_path)


def test_a_carriage_return_in_a_name_does_not_end_its_row(tmp_path: Path) -> None:
    rows = [Label("Audi TT\r/1.jpg", "Audi\rTT", "train"), Label("a.jpg", "BMW", "test")]
    write_labels(tmp_path / "labels.csv", rows)
    assert read_labels(tmp_path / "labels.csv") == rows


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    rows = [
        Label('it\'s "a", b.jpg', "Škoda\n2012", "train"),
        Label("BMW X3/ä.jpg", "Ram C/V", "test"),
        Label("", "", ""),
    ]
    write_labels(tmp_path / "new" / "labels.csv", rows)
    assert read_labels(tmp_path / "new" / "labels.csv") == rows


@pytest.mark.parametrize(
    ("class_name", "folder"),
    [
        ("BMW X3 SUV 2012", "BMW X3 SUV 2012"),
        ("Ram C/V Cargo Van Minivan 2012", "Ram C-V Cargo Van Minivan 2012"),
        ("..", "-"),
        ("../../etc", "-..-etc"),
        (".hidden", "hidden"),
        ("ends. ", "ends"),
        ('a\\b:c*d?e"f<g>h|i\nj', "a-b-c-d-e-f-g-h-i-j"),
        ("Citroe\u0308n", "Citroën"),
        ("車 2012", "車 2012"),
        ("", "-"),
        ("x" * 300, "x" * 200),
        ("車" * 100, "車" * 66),
    ],
)
def test_a_class_name_becomes_one_visible_folder(tmp_path: Path, class_name: str, folder: str) -> None:
    assert folder_name(class_name) == folder
    (tmp_path / folder_name(class_name)).mkdir()
    assert [entry.name for entry in tmp_path.iterdir()] == [folder]


def tree(root: Path, classes: dict[str, int]) -> Path:
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number} a.jpg").write_bytes(b"x")
    return root


def test_folders_give_labels_without_a_split(tmp_path: Path) -> None:
    root = tree(tmp_path, {"BMW X3 2012": 10, "Škoda": 20, "one": 1})
    rows = labels_from_folders(root)
    assert rows[0] == Label("BMW X3 2012/0 a.jpg", "BMW X3 2012", "")
    assert len(rows) == 31
    assert {row.subset for row in rows} == {""}


def test_stray_and_hidden_files_are_no_classes_and_no_images(tmp_path: Path) -> None:
    root = tree(tmp_path, {"BMW": 2, "Audi": 2, ".cache": 3})
    for name in (".DS_Store", "stray.jpg", "BMW/.DS_Store", "BMW/._0.jpg", "BMW/Thumbs.db", "BMW/notes.txt"):
        (root / name).write_bytes(b"x")
    rows = labels_from_folders(root)
    assert {row.class_name for row in rows} == {"BMW", "Audi"}
    assert len(rows) == 4


def test_a_tree_with_train_and_test_keeps_them(tmp_path: Path) -> None:
    tree(tmp_path / "train", {"BMW": 3, "Audi": 2})
    tree(tmp_path / "test", {"BMW": 1})
    rows = labels_from_folders(tmp_path)
    assert {(row.class_name, row.subset) for row in rows} == {("BMW", "train"), ("Audi", "train"), ("BMW", "test")}
    assert rows[0].img_name == "train/Audi/0 a.jpg"
    assert len(rows) == 6


def test_folders_without_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no class folders"):
        labels_from_folders(tmp_path)
    tree(tmp_path, {"BMW": 2, "Audi": 0})
    with pytest.raises(DataError, match="1 class folder without an image: 'Audi'"):
        labels_from_folders(tmp_path)
    with pytest.raises(DataError, match="cannot be listed"):
        labels_from_folders(tmp_path / "gone")


def test_a_share_is_kept_in_all_and_in_proportion_by_class() -> None:
    classes = {f"class {n}": [f"{n}/{k}" for k in range(24 + n % 45)] for n in range(196)}
    total = sum(map(len, classes.values()))
    drawn = draw_share(classes, 0.2, seed=3)
    assert len(drawn) == round(0.2 * total)
    for names in classes.values():
        assert abs(len(drawn.intersection(names)) - 0.2 * len(names)) < 1


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.99])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_class_keeps_one(share: float, size: int) -> None:
    classes = {f"class {n}": [f"{n}/{k}" for k in range(size)] for n in range(5)}
    drawn = draw_share(classes, share, seed=3)
    assert all(not drawn.issuperset(names) for names in classes.values())
    assert bool(drawn) == (size > 1)


def test_what_is_drawn_does_not_depend_on_the_order() -> None:
    classes = {"b": ["b/2", "b/1", "b/3"], "a": ["a/1", "a/2", "a/3"]}
    turned = {"a": ["a/3", "a/1", "a/2"], "b": ["b/1", "b/2", "b/3"]}
    assert draw_share(classes, 0.4, seed=1) == draw_share(turned, 0.4, seed=1)
    assert len({frozenset(draw_share(classes, 0.4, seed=seed)) for seed in range(20)}) > 3


def test_the_draw_is_the_same_on_every_machine() -> None:
    names = {"car": [f"car/{k:02d}.jpg" for k in range(10)]}
    # Written down once: another draw would give trees without a split.json another validation part than before.
    assert sorted(draw_share(names, 0.3, seed=123)) == ["car/00.jpg", "car/05.jpg", "car/06.jpg"]
