#!/bin/sh
# What both images run, in the folder of the sources: install_image.sh cpu|cuda
set -eu
case "$1" in
    cpu) pip install --constraint constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu torch ;;
    cuda) pip install --constraint constraints.txt torch ;;
    *)
        echo "the device is cpu or cuda, not $1" >&2
        exit 2
        ;;
esac
pip install --constraint constraints.txt '.[demo,hub,itk]'
