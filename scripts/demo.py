"""A web page to try ageing on: upload a photo or use the webcam, and drag the age slider.

It shows the face or the whole photo with it, takes strength and another face's colours, and gives
images, strips and videos. It binds to this computer only, works offline, and keeps photos in
memory only, while they are used.

    python scripts/demo.py
    python scripts/demo.py --checkpoint_path pretrained_models/sam_ffhq_aging.pdparams --port 8080
    python scripts/demo.py --checkpoint_path one.pdparams,two.pdparams --identity_path ir50.pdparams
"""

from paddle_sam.core.command import script

main = script(
    __doc__,
    "paddle_sam.demo.options:DemoOptions",
    "paddle_sam.demo.serve:serve",
    environment="paddle_sam.demo.options:ENVIRONMENT",
)

if __name__ == "__main__":
    raise SystemExit(main())
