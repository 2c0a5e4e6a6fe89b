"""Download published weights into pretrained_models/, checked and resumable.

Sound files that are there already are not fetched again; a transfer that broke off resumes when the
command is run again. Where a host refuses, the message says what to fetch by hand.
Published PyTorch files are converted afterwards: python convert/convert_weights.py FILE
Exit status: 0 all there, 1 some failed, 2 none.

    python scripts/download_weights.py --list
    python scripts/download_weights.py landmarks lpips_alex
    python scripts/download_weights.py judges
"""

from paddle_sam.core.command import script

main = script(
    __doc__,
    "paddle_sam.convert.options:DownloadOptions",
    "paddle_sam.convert.obtain_weights:download_weights",
)

if __name__ == "__main__":
    raise SystemExit(main())
