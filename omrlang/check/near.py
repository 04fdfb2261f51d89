"""A stage's ``unique = near(…)`` against itself: each column is a text or ``images``, each likeness has a column to compare."""

from __future__ import annotations

from collections.abc import Iterator

from omrlang import syntax as s
from omrlang.check.context import Context
from omrlang.check.suits import says_no_images
from omrlang.schema import Filter, Mix, Spec
from omrlang.scope import Bound, Draft
from omrlang.source import Span
from omrlang.types import Model, Near, RowExpr, is_images


def check_near(ctx: Context, draft: Draft, spec: Spec) -> None:
    """Report what a near-duplicate rule cannot mean."""
    if not isinstance(spec, Filter | Mix) or not isinstance(spec.unique, Near):
        return
    near, where = spec.unique, _Written(ctx, draft)
    for column, span in zip(near.columns, where.columns, strict=True):
        if column.type == "list" and not is_images(column):
            message = "`near` compares texts and `images`, this is another list"
            ctx.error("E301", message, span, "an item of it is a text, such as `options[0]`")
    _check_sides(ctx, near, where)
    if near.least <= 0 and "unique.at" not in spec.unpublished:
        most = 1 - 1 / len(near.columns)
        message = (
            f"`at` is over {most:.4g} as a mean over {len(near.columns)} columns, not {near.at:g}"
        )
        hint = "below it every column alone could be as unlike as can be"
        ctx.error("E305", message, where.argument("at"), hint)


def _check_sides(ctx: Context, near: Near, where: _Written) -> None:
    """Texts and images: a likeness that is given has a column, an encoder of images sees them."""
    sides: tuple[tuple[str, str, list[RowExpr]], ...] = (
        ("text", "texts are", [column for column in near.columns if not is_images(column)]),
        ("image", "images are", [column for column in near.columns if is_images(column)]),
    )
    for name, what, columns in sides:
        if where.has(name) and not columns:
            message = f"`{name}` says how {what} compared, and `near` names none"
            ctx.error("E308", message, where.argument(name))
    given = where.bound(near.image, "image")
    if given is not None and says_no_images(ctx, *given):
        message = f"`image` takes a model that sees images, `{given[1].name}` is one of text alone"
        ctx.error("E314", message, where.argument("image"), "`text` is what it can compare")


class _Written:
    """The call of a ``near`` as it stands in the recipe."""

    def __init__(self, ctx: Context, draft: Draft) -> None:
        slot = draft.settings["unique"].value
        assert slot is not None, "a near was made of a value"
        self.ctx = ctx
        self.call = ctx.follow(slot)

    @property
    def args(self) -> tuple[s.Arg, ...]:
        return self.call.expr.args if isinstance(self.call.expr, s.CallExpr) else ()

    @property
    def columns(self) -> Iterator[Span]:
        """Where each column stands."""
        for arg in self.args:
            if arg.name is None:
                yield arg.span
            elif arg.name.id == "columns" and isinstance(arg.value, s.ListExpr):
                yield from (item.span for item in arg.value.items)

    def has(self, name: str) -> bool:
        return any(arg.name is not None and arg.name.id == name for arg in self.args)

    def argument(self, name: str) -> Span:
        """Where an argument stands; the whole call where it does not."""
        found = [arg.value.span for arg in self.args if arg.name and arg.name.id == name]
        return found[0] if found else self.call.expr.span

    def bound(self, value: object, name: str) -> tuple[Bound, Model] | None:
        """An argument that is a model, as written and as made."""
        if not isinstance(value, Model):
            return None
        given = [arg.value for arg in self.args if arg.name and arg.name.id == name]
        return (self.call.of(given[0]), value) if given else None
