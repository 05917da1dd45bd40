"""The official data sets that can be downloaded by name, with their addresses and terms.

A checksum is listed only if the publisher states it and several places agree. GroupLens also
publishes `<file>.md5` beside each archive, which is read if no checksum is listed. The other
publishers state none: the SHA-256 of the first download is then stored in a lock file, and later
downloads are compared with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from modalign.errors import UnknownName

GROUPLENS = "https://files.grouplens.org/datasets/movielens"
MCAULEY = "https://mcauleylab.ucsd.edu/public_datasets/data"
CITEULIKE = "https://raw.githubusercontent.com/js05212"

MOVIELENS_TERMS = (
    "GroupLens's terms: research use with acknowledgement; no redistribution without separate "
    "permission; no commercial use without permission of a faculty member of GroupLens; no "
    "statement that implies endorsement. The README in the archive has the full text."
)
MOVIELENS_CITATION = (
    "F. M. Harper, J. A. Konstan: The MovieLens Datasets: History and Context. "
    "ACM Transactions on Interactive Intelligent Systems 5(4), 2015. doi:10.1145/2827872"
)
AMAZON_TERMS = (
    "The publishers state no licence with the files; the reviews are Amazon's and their "
    "writers'. Offered for research; ask the McAuley Lab before any other use, and do not "
    "redistribute."
)
CITEULIKE_TERMS = (
    "The publisher's repository states no licence. Collected from CiteULike and Google Scholar "
    "for research; cite the paper, and do not redistribute."
)
CITEULIKE_CITATION = (
    "H. Wang, B. Chen, W.-J. Li: Collaborative Topic Regression with Social Regularization for "
    "Tag Recommendation. IJCAI 2013."
)
AMAZON_2014_CITATION = (
    "R. He, J. McAuley: Ups and Downs: Modeling the Visual Evolution of Fashion Trends with "
    "One-Class Collaborative Filtering. WWW 2016."
)
AMAZON_2023_CITATION = (
    "Y. Hou, J. Li, Z. He, A. Yan, X. Chen, J. McAuley: Bridging Language and Items for "
    "Retrieval and Recommendation. arXiv:2403.03952, 2024."
)


@dataclass(frozen=True)
class RemoteFile:
    """One file to download.

    Attributes:
        checksum: "md5:..." or "sha256:..."; "" if none is certain.
        checksum_url: the publisher's own checksum file, read if `checksum` is "".
        size: bytes; 0 if it is not known.
    """

    url: str
    checksum: str = ""
    checksum_url: str = ""
    size: int = 0

    @property
    def name(self) -> str:
        """Name of the file, the last part of its address."""
        return self.url.rsplit("/", 1)[1]


@dataclass(frozen=True)
class DatasetRecord:
    """An official data set.

    Attributes:
        name: what `modalign data get` calls it.
        source: the kind of source that reads it, for `modalign data import`.
        files: the files to download; a zip archive is unpacked.
        licence: its terms, in a few sentences.
    """

    name: str
    source: str
    files: tuple[RemoteFile, ...]
    licence: str
    citation: str

    @property
    def url(self) -> str:
        """The address of the file, or of the first of several."""
        return self.files[0].url


def _movielens(name: str, md5: str, size: int) -> DatasetRecord:
    url = f"{GROUPLENS}/{name}.zip"
    file = RemoteFile(url, f"md5:{md5}" if md5 else "", f"{url}.md5", size)
    return DatasetRecord(name, "movielens", (file,), MOVIELENS_TERMS, MOVIELENS_CITATION)


def _citeulike(name: str, files: str) -> DatasetRecord:
    remote = tuple(RemoteFile(f"{CITEULIKE}/{name}/master/{file}") for file in files.split())
    return DatasetRecord(name, "citeulike", remote, CITEULIKE_TERMS, CITEULIKE_CITATION)


def _amazon_2014(category: str) -> DatasetRecord:
    base = f"{MCAULEY}/amazon/categoryFiles"
    files = (f"reviews_{category}_5.json.gz", f"meta_{category}.json.gz")
    remote = tuple(RemoteFile(f"{base}/{file}") for file in files)
    name = f"amazon-2014-{category}"
    return DatasetRecord(name, "amazon", remote, AMAZON_TERMS, AMAZON_2014_CITATION)


def _amazon_2023(category: str) -> DatasetRecord:
    base = f"{MCAULEY}/amazon_2023/raw"
    remote = (
        RemoteFile(f"{base}/review_categories/{category}.jsonl.gz"),
        RemoteFile(f"{base}/meta_categories/meta_{category}.jsonl.gz"),
    )
    name = f"amazon-2023-{category}"
    return DatasetRecord(name, "amazon", remote, AMAZON_TERMS, AMAZON_2023_CITATION)


SPLITS_2023 = {"last-out": "last_out", "by-time": "timestamp"}
"""Official splits of the 5-cores of 2023, with the names of their folders: the last two items of
each user, or all that is later than two moments."""


def _amazon_2023_split(split: str, category: str) -> DatasetRecord:
    base = f"{MCAULEY}/amazon_2023"
    parts = ("train", "valid", "test")
    cut = f"{base}/benchmark/5core/{SPLITS_2023[split]}"
    remote = (
        *(RemoteFile(f"{cut}/{category}.{part}.csv.gz") for part in parts),
        RemoteFile(f"{base}/raw/meta_categories/meta_{category}.jsonl.gz"),
    )
    name = f"amazon-2023-{split}-{category}"
    return DatasetRecord(name, "amazon", remote, AMAZON_TERMS, AMAZON_2023_CITATION)


CATEGORIES_2014 = """
Amazon_Instant_Video Apps_for_Android Automotive Baby Beauty Books CDs_and_Vinyl
Cell_Phones_and_Accessories Clothing_Shoes_and_Jewelry Digital_Music Electronics
Grocery_and_Gourmet_Food Health_and_Personal_Care Home_and_Kitchen Kindle_Store Movies_and_TV
Musical_Instruments Office_Products Patio_Lawn_and_Garden Pet_Supplies Sports_and_Outdoors
Tools_and_Home_Improvement Toys_and_Games Video_Games
"""

CATEGORIES_2023 = """
All_Beauty Amazon_Fashion Appliances Arts_Crafts_and_Sewing Automotive Baby_Products
Beauty_and_Personal_Care Books CDs_and_Vinyl Cell_Phones_and_Accessories
Clothing_Shoes_and_Jewelry Digital_Music Electronics Gift_Cards Grocery_and_Gourmet_Food
Handmade_Products Health_and_Household Health_and_Personal_Care Home_and_Kitchen
Industrial_and_Scientific Kindle_Store Magazine_Subscriptions Movies_and_TV
Musical_Instruments Office_Products Patio_Lawn_and_Garden Pet_Supplies Software
Sports_and_Outdoors Subscription_Boxes Tools_and_Home_Improvement Toys_and_Games Unknown
Video_Games
"""
WITHOUT_5_CORE = {
    "Amazon_Fashion", "Appliances", "Digital_Music", "Handmade_Products",
    "Health_and_Personal_Care", "Subscription_Boxes",
}  # fmt: skip
"""Categories of 2023 of which no user and item with five reviews are left."""

RECORDS: dict[str, DatasetRecord] = {
    record.name: record
    for record in (
        _movielens("ml-100k", "0e33842e24a9c977be4e0107933c0723", 4_924_029),
        _movielens("ml-1m", "c4d9eecfca2ab87c1945afe126590906", 0),
        _movielens("ml-20m", "cd245b17a1ae2cc31bb14903e1204af3", 198_702_078),
        _movielens("ml-25m", "6b51fb2759a8657d3bfcbfc42b592ada", 261_978_986),
        _movielens("ml-32m", "d472be332d4daa821edc399621853b57", 238_950_008),
        _movielens("ml-10m", "", 0),
        # GroupLens replaces this one from time to time, so only its own file has the checksum.
        _movielens("ml-latest-small", "", 0),
        _citeulike(
            "citeulike-a",
            "users.dat mult.dat vocabulary.dat tags.dat item-tag.dat citations.dat raw-data.csv",
        ),
        _citeulike(
            "citeulike-t", "users.dat mult.dat vocabulary.dat tags.dat tag-item.dat citations.dat"
        ),
        *map(_amazon_2014, CATEGORIES_2014.split()),
        *map(_amazon_2023, CATEGORIES_2023.split()),
        *(
            _amazon_2023_split(split, category)
            for split in SPLITS_2023
            for category in CATEGORIES_2023.split()
            if category not in WITHOUT_5_CORE
        ),
    )
}


def record(name: str) -> DatasetRecord:
    """The data set of a name.

    Raises:
        UnknownName: there is none; the nearest name is suggested.

    Example:
        >>> record("ml-100k").files[0].name, record("ml-100k").source
        ('ml-100k.zip', 'movielens')
    """
    if name not in RECORDS:
        # There are many Amazon categories, so only similar names are listed.
        short = {one for one in RECORDS if not one.startswith("amazon-")}
        raise UnknownName("data set", name, short | set(get_close_matches(name, RECORDS)))
    return RECORDS[name]
