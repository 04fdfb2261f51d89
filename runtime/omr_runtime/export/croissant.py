"""What a dataset was made of -> its description in MLCommons' Croissant 1.0 (a JSON-LD document)."""

from __future__ import annotations

from typing import Any

from omr_runtime.export.ancestry import place_text, sources
from omr_runtime.export.card import Facts
from omr_runtime.export.rows import File

_OWN = (
    "arrayShape", "citeAs", "column", "dataBiases", "dataCollection", "equivalentProperty", "extract", "field", "fileProperty",
    "fileObject", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path",
    "personalSensitiveInformation", "recordSet", "references", "regex", "repeated", "replace", "samplingRate", "separator",
    "source", "subField", "transform",
)  # fmt: skip
"""The terms of Croissant's own vocabulary."""

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    **{name: f"cr:{name}" for name in _OWN},
}
_TYPES = {
    "sample_index": "sc:Integer",
    "num_tokens": "sc:Integer",
    "pass_rate": "sc:Float",
    "images": "sc:ImageObject",
    "videos": "sc:VideoObject",
    "audios": "sc:AudioObject",
}
_MANY = ("images", "videos", "audios", "options")


def croissant(facts: Facts, url: str, published: str) -> dict[str, Any]:
    """The document; ``published`` is a date. File names are relative to where it lies."""
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": facts.title,
        "description": f"{facts.num_rows:,} rows of {facts.made[-1].address}, made by omr {facts.version}.",
        "citeAs": f"{facts.title}, artifact {facts.made[-1].fingerprint}",
        "datePublished": published,
        "license": [name or "unknown" for name in facts.licences] or ["unknown"],
        "url": url,
        "version": "1.0.0",
        "isBasedOn": [place_text(source.place) for _, source in sources(facts.made)],
        "distribution": [*map(_file, facts.files), _FILES],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "rows",
                "name": "rows",
                "key": {"@id": "rows/id"},
                "field": [_field(name) for name in facts.columns],
            }
        ],
    }


_FILES = {
    "@type": "cr:FileSet",
    "@id": "parquet",
    "name": "parquet",
    "encodingFormat": "application/x-parquet",
    "includes": "data/*.parquet",
}


def _file(file: File) -> dict[str, Any]:
    name = file.name.rpartition("/")[2]
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": file.name,
        "contentSize": f"{file.num_bytes} B",
        "encodingFormat": "application/x-parquet",
        "sha256": file.sha256,
    }


def _field(name: str) -> dict[str, Any]:
    source: dict[str, Any] = {"fileSet": {"@id": "parquet"}, "extract": {"column": name}}
    if name in ("images", "videos", "audios"):
        source["transform"] = {"jsonPath": "[*].bytes"}
    field = {
        "@type": "cr:Field",
        "@id": f"rows/{name}",
        "name": name,
        "dataType": _TYPES.get(name, "sc:Text"),
        "source": source,
    }
    return field | ({"repeated": True} if name in _MANY else {})
