"""What a file is that is not read, in words: by its first bytes, then by its name. Pictures of other kinds, films, archives."""

import re
from collections.abc import Mapping

from .headers import MOST_HEAD

SAVE_AS = "save it as jpg or png"
RAW = "a camera's raw file: save it as jpg first"
RAW_SUFFIXES = {
    ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".dng", ".orf", ".rw2", ".raw", ".rwl", ".raf", ".pef",
    ".srw", ".x3f", ".3fr", ".fff", ".iiq", ".erf", ".kdc", ".dcr", ".k25", ".mrw", ".mos", ".mef", ".gpr", ".cap",
}  # fmt: skip
FILM = "a video: save a picture of it as jpg first"
ARCHIVE = "an archive: unpack it first"


def _not_read(what: str) -> str:
    return f"{what}, which is not read: {SAVE_AS}"


def _brands(names: str) -> bytes:
    """Matches an ISO file whose main brand is one of these."""
    return rb"....ftyp(" + names.encode() + rb")"


# In this order: the first that matches the file's first bytes.
BY_CONTENT: Mapping[bytes, str] = {
    rb"\xff\x0a|\x00\x00\x00\x0cJXL \r\n\x87\n": _not_read("a JPEG XL picture"),
    rb"\x00\x00\x00\x0cjP(  |\x1a\x1a)\r\n\x87\n|\xff\x4f\xff\x51": _not_read("a JPEG 2000 picture"),
    rb"\xff\xd8\xff\xf7": _not_read("a JPEG-LS picture"),
    rb"II\xbc\x01": _not_read("a JPEG XR picture"),
    rb"II\*\x00.{4}CR|II\x1a\x00.{2,8}HEAPCCDR|FUJIFILMCCD-RAW|IIU\x00|II(RO|RS)|MMOR|FOVb|\x00MRM|" + _brands("crx "): RAW,
    rb"8BP[SB]": _not_read("a Photoshop picture"),
    rb"gimp xcf": _not_read("a GIMP picture"),
    rb"PK\x03\x04.{26}mimetype(image/openraster|application/x-krita)": _not_read("a Krita or OpenRaster picture"),
    rb"\x76\x2f\x31\x01": _not_read("an OpenEXR picture"),
    rb"#\?(RADIANCE|RGBE)": _not_read("an HDR picture"),
    rb"\x00\x00[\x01\x02]\x00[\x01-\xff]\x00.{5}[\x00-\x01]": _not_read("an icon"),
    rb"icns": _not_read("an icon"),
    rb"DDS \x7c\x00\x00\x00": _not_read("a DDS texture"),
    rb"qoif": _not_read("a QOI picture"),
    rb"FLIF|BPG\xfb": _not_read("a picture of a rare kind (FLIF, BPG)"),
    rb"P[1-7]\s+(#|\d|WIDTH)|P[Ff]\s+\d": _not_read("a picture of Netpbm's kind (ppm, pgm, pfm)"),
    rb"\x01\xda[\x00\x01][\x01\x02]\x00[\x01-\x03]": _not_read("an SGI picture"),
    rb"\x0a[\x00-\x05]\x01[\x01\x02\x04\x08]": _not_read("a PCX picture"),
    rb"SIMPLE  = +T|.{128}DICM": _not_read("a picture of science or medicine (FITS, DICOM)"),
    rb"AT&TFORM....DJV": _not_read("a DjVu document"),
    rb"%PDF-": _not_read("a PDF document"),
    rb"%!PS|\xc5\xd0\xd3\xc6": _not_read("a PostScript document"),
    rb"(\xef\xbb\xbf)?\s*+(<\?xml[^>]*>\s*+)?(<!--((?!-->).)*-->\s*+)*+(<!DOCTYPE svg.*?)?<svg[\s>]|\x1f\x8b.*\.svg\x00": _not_read(
        "a drawing of lines (SVG)"
    ),
    rb"\xd7\xcd\xc6\x9a|\x01\x00\x00\x00.{36} EMF": _not_read("a drawing of lines (WMF, EMF)"),
    _brands("isom|iso[2-9]|mp4.|avc1|qt  |M4V.|m4v |3g[2gpsr].|dash|MSNV|F4V |mmp4|XAVC|NDS.") + rb"|....(moov|mdat|wide|pnot)": FILM,
    rb"RIFF....AVI |\x1a\x45\xdf\xa3|\x00\x00\x01[\xb3\xba]|\x30\x26\xb2\x75\x8e\x66|FLV\x01|OggS|G(?!IF8).{187}G.{187}G": FILM,
    rb"PK\x03\x04|PK\x05\x06|Rar!\x1a|7z\xbc\xaf|\x1f\x8b\x08|BZh[1-9]|\xfd7zXZ\x00|\x28\xb5\x2f\xfd|.{257}ustar": ARCHIVE,
    rb"(\xef\xbb\xbf)?\s*+(<!--.*?-->\s*)?<(?i:!DOCTYPE )?(?i:html)": "a web page, not the picture itself: save that anew",
    rb"version https://git-lfs": "a pointer of Git LFS: fetch the file itself with `git lfs pull`",
}
FORMS = [(re.compile(form, re.DOTALL), words) for form, words in BY_CONTENT.items()]
# Where the first bytes say nothing.
BY_NAME: Mapping[str, str] = {
    **dict.fromkeys((".jxl",), _not_read("a JPEG XL picture")),
    **dict.fromkeys((".jp2", ".j2k", ".jpf", ".jpx", ".jpm", ".j2c", ".jpc", ".jph"), _not_read("a JPEG 2000 picture")),
    **dict.fromkeys((".jxr", ".wdp", ".hdp"), _not_read("a JPEG XR picture")),
    **dict.fromkeys(RAW_SUFFIXES, RAW),
    **dict.fromkeys((".tga", ".icb", ".vda", ".vst"), _not_read("a Targa picture")),
    **dict.fromkeys((".psd", ".psb"), _not_read("a Photoshop picture")),
    **dict.fromkeys((".svg", ".svgz", ".ai"), _not_read("a drawing of lines")),
    **dict.fromkeys((".ico", ".cur", ".icns"), _not_read("an icon")),
    **dict.fromkeys((".exr", ".hdr"), _not_read("an HDR picture")),
    **dict.fromkeys((".pdf", ".eps", ".ps"), _not_read("a document")),
    **dict.fromkeys((".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mts", ".m2ts", ".mpg", ".wmv", ".3gp"), FILM),
    **dict.fromkeys((".zip", ".rar", ".7z", ".tar", ".gz", ".livp"), ARCHIVE),
}


def kind_not_read(head: bytes) -> str:
    """What a file is, where its first bytes (up to MOST_HEAD) say that it is of a kind that is not read; else empty."""
    head = head[:MOST_HEAD]
    return next((words for form, words in FORMS if form.match(head)), "")


def kind_by_name(suffix: str) -> str:
    """The same by the end of its name, in lower case: `.jxl`."""
    return BY_NAME.get(suffix, "")
