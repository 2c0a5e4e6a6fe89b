#!/usr/bin/env bash
# From a fresh clone to an age strip: virtual environment, installation, landmark predictor, strip
# of a public-domain portrait. Arguments go to scripts/inference_side_by_side.py, for example
#   bash scripts/quickstart.sh --data_path my_photo.jpg
source "$(dirname "$0")/environment.sh" run .
python scripts/download_weights.py landmarks
python scripts/inference_side_by_side.py "$@"
