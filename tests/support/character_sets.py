"""Patient names under each Specific Character Set that archives hold (PS3.3 C.12.1.1.2; PS3.5 annexes H to K).

name → (terms, the name's bytes, its text).
"""

from __future__ import annotations

KANJI = "Yamada^Tarou=山田^太郎=やまだ^たろう"
ESCAPED_KANJI = (
    b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B"  # PS3.5 section H.3.1
)
ESCAPED_HANGUL = b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf"
CHARACTER_SETS = {
    "default": (b"", b"Doe^John", "Doe^John"),
    "latin 1": (b"ISO_IR 100", "Buc^Jérôme".encode("latin-1"), "Buc^Jérôme"),
    "greek": (b"ISO_IR 126", "Διονυσιος".encode("iso8859-7"), "Διονυσιος"),
    "cyrillic": (b"ISO_IR 144", "Люкceмбypг".encode("iso8859-5"), "Люкceмбypг"),
    "katakana and kanji": (
        b"ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎",
    ),
    "kanji": (b"\\ISO 2022 IR 87", ESCAPED_KANJI, KANJI),
    "kanji with delimiter bytes": (b"\\ISO 2022 IR 87", b"Juu^Ai=\x1b$B==\x1b(B^\x1b$B0&\x1b(B", "Juu^Ai=十^愛"),
    "kanji with backslash bytes": (b"\\ISO 2022 IR 87", b"Mori^Sho=\x1b$B?9\x1b(B^\x1b$B>\\\x1b(B", "Mori^Sho=森^詳"),
    "hangul": (b"\\ISO 2022 IR 149", ESCAPED_HANGUL, "Hong^Gildong=洪^吉洞=홍^길동"),
    "utf-8": (b"ISO_IR 192", "Wang^XiaoDong=王^小东".encode(), "Wang^XiaoDong=王^小东"),
    "gb18030": (b"GB18030", "Wang^XiaoDong=王^小东".encode("gb18030"), "Wang^XiaoDong=王^小东"),
    "gb18030 with delimiter bytes": (b"GB18030", "Wang^Cheng=王^誠".encode("gb18030"), "Wang^Cheng=王^誠"),
    "kanji in katakana's place": (b"ISO_IR 13", "Yamada=山田".encode("shift_jis"), "Yamada=山田"),
    "gbk": (b"GBK", "Zhou^Yan=周^燕".encode("gbk"), "Zhou^Yan=周^燕"),
}
