"""What TLS costs intake: images a second by DCMTK's storescu to a receiver, plain and over TLS 1.3.

python tests/benchmarks/tls_speed.py [--images N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from dicom_node.base.events import configure_logging
from support.certificates import Authority
from support.dicom_factory import StudyFacts, head_phantom, mr_slices, write
from support.peers import configuration_for, free_port, receiver, store


def images_a_second(folder: Path, files: list[Path], tls: dict[str, str] | None, options: list[str]) -> float:
    """One association, all files."""
    with receiver(configuration_for(folder, free_port(), **({"tls": tls} if tls else {}))) as node:
        began = time.monotonic()
        done = store(node.port, files, *options)
        assert done.returncode == 0, done.stdout
        return len(files) / (time.monotonic() - began)


def main() -> None:
    """Measure both and print them."""
    configure_logging("error")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slices = mr_slices(head_phantom(arguments.images), StudyFacts())
        files = [write(image, folder / "images" / f"{number}.dcm") for number, image in enumerate(slices)]
        site = Authority(folder)
        node, sender = site.issue("node"), site.issue("sender")
        found = {
            "images": len(files),
            "bytes": files[0].stat().st_size,
            "plain": images_a_second(folder / "plain", files, None, []),
            "tls": images_a_second(folder / "tls", files, node.table(), sender.dcmtk()),
        }
    print(f"{found['images']} images of {found['bytes']} bytes: {found['plain']:.0f}/s plain, {found['tls']:.0f}/s TLS")
    if arguments.json:
        arguments.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
