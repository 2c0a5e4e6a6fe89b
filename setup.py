"""What pyproject.toml cannot say: three folders of the repository are packages when installed.

The embedded weights and the commands keep their fixed places at the top of the repository, and an
installed package has them too.
"""

from setuptools import find_packages, setup

INSTALLED = {
    "paddle_sam.installed_weights": "pretrained_models",
    "paddle_sam.installed_scripts": "scripts",
    "paddle_sam.installed_convert": "convert",
}

setup(
    packages=[*find_packages(include=["paddle_sam", "paddle_sam.*"]), *INSTALLED],
    package_dir=INSTALLED,
)
