"""A web page to try ageing on: upload a photo or use the webcam, and drag the age slider.

It binds to this computer only, works offline, writes no photo to disk and keeps only the cut-out
faces, in memory, while they are used.

    python scripts/demo.py
    python scripts/demo.py --checkpoint_path pretrained_models/sam_ffhq_aging.pdparams --port 8080
"""

import sys

from paddle_sam.common.runtime import command


@command
def main(argv=None):
    from paddle_sam.configs.base import parse
    from paddle_sam.configs.demo import DemoConfig

    config = parse(DemoConfig, argv, __doc__)
    from paddle_sam.inference.web.serve import serve

    serve(config)


if __name__ == "__main__":
    sys.exit(main())
