"""What makes two rows near duplicates: the columns that are compared, by which likeness, from which value on."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from omrlang.types.models import Model
from omrlang.types.rows import RowExpr
from omrlang.types.setting import Frozen, Setting, construct


class Minhash(Frozen):
    """Texts by their words, with no model: the Jaccard similarity of the sets of runs of ``words`` words.

    Words are runs of letters and digits in lower case and NFKC; a text of fewer is one run. MinHash (Broder 1997) in
    bands finds the pairs whose similarity is then computed exactly; the bands are chosen so that at least 99.9% of the
    pairs right at the threshold are found.
    """

    kind: Literal["minhash"] = "minhash"
    words: Annotated[int, Setting("words of a run", cls="rows", ge=1, le=100)] = 3
    hashes: Annotated[
        int,
        Setting("permutations: more find pairs with fewer candidates", cls="rows", ge=16, le=1024),
    ] = 128


class Phash(Frozen):
    """Images by a perceptual hash, with no model: the share of the bits that two hashes have in common.

    The hash has ``size * size`` bits of the lowest frequencies of the grey image (as the package imagehash makes it); what
    was scaled or compressed again differs in few. All pairs are found.
    """

    kind: Literal["phash"] = "phash"
    size: Annotated[int, Setting("bits of the hash's side", cls="rows", ge=4, le=16)] = 8


TextLikeness: TypeAlias = Minhash | Model
ImageLikeness: TypeAlias = Phash | Model


class Near(Frozen):
    """Of rows that are alike, and of those that are alike to them in turn, one stays: the row with the lowest
    sha256(seed, content, response), so that no order, split or repetition of the input decides.

    ``columns`` are expressions over the row that give a text, and ``images``. A model as likeness compares by the cosine
    of what it makes of them; several images count as their mean. By ``phash`` lists of images are alike as their least
    alike pair, in order. A row without images is like another without; a missing text is like none.
    """

    kind: Literal["near"] = "near"
    columns: Annotated[tuple[RowExpr, ...], Setting("what is compared", cls="rows")]
    at: Annotated[
        float,
        Setting("likeness from which on two rows are near duplicates", cls="rows", gt=0, le=1),
    ]
    across: Annotated[
        Literal["each", "mean"],
        Setting("each: every column is that alike; mean: all of them are on average", cls="rows"),
    ] = "each"
    text: Annotated[TextLikeness, Setting("how texts are compared", cls="rows")] = construct(
        Minhash
    )
    image: Annotated[ImageLikeness, Setting("how images are compared", cls="rows")] = construct(
        Phash
    )

    @property
    def least(self) -> float:
        """How alike each column is at least, where two rows are near duplicates."""
        return self.at if self.across == "each" else 1 - len(self.columns) * (1 - self.at)

    @property
    def models(self) -> tuple[Model, ...]:
        """The encoders that are asked: those of columns that are there."""
        asked = {"image" if is_images(column) else "text" for column in self.columns}
        found = {"text": self.text, "image": self.image}
        return tuple(m for side, m in found.items() if side in asked and isinstance(m, Model))

    @property
    def rule(self) -> str:
        """What verdicts and reasons call it."""
        shown = ", ".join(column.text for column in self.columns)
        mean = ", across = mean" if self.across == "mean" else ""
        return f"unique = near({shown}, at = {self.at:g}{mean})"


def is_images(column: RowExpr) -> bool:
    """Whether a column of ``near`` is the row's images; all others give texts."""
    return column.tree.op == "col" and column.tree.name == "images"
